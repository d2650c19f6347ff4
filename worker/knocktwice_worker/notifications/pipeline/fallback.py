"""The decision: for notifications whose countdown is over, does the second knock follow, and may it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category, Channel, When
from knocktwice_worker.audience.opt_outs import suppressed
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.content import plans, rendering, sms_parts
from knocktwice_worker.content.links import link_store
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.lifecycle import FALL_BACK, LOST, DeliveryState, Facts, Verdict, decide
from knocktwice_worker.limits.per_number import Answer, Ask, LimitsUnavailable, count_in_postgres
from knocktwice_worker.limits.quiet_hours import country, zones_of
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.concurrency import at_most

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from knocktwice_worker.config import Settings
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

_UNDECIDED = {Verdict.WAIT, Verdict.LIMITS_UNAVAILABLE, Verdict.QUIET_HOURS}

#: When to look again at a decision that could not be taken yet.
_WAIT = timedelta(seconds=30)


@dataclass(slots=True)
class _Case:
    """One fallback under decision. ``verdict`` changes when a limit says no."""

    row: Row[Any]
    category: Category
    verdict: Verdict
    reservation: store.Reservation | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    links: list[link_store.Link] = field(default_factory=list)
    unconfirmed: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        return str(self.row.notification_id)

    def decision(self) -> store.Decision:
        row = self.row
        seen = {name: getattr(row, name) for name in ("delivered", "clicked", "cancelled") if getattr(row, name)}
        inputs = {
            "when": row.trigger,
            "due_at": row.due_at,
            row.before_channel: row.before,
            "reported": row.provider_status,
            "events": seen,
            **self.limits,
            "unconfirmed": self.unconfirmed,
        }
        told = {k: v for k, v in inputs.items() if v is not None}
        return store.Decision(self.id, self.verdict, told, row.step, answered=row.clicked is not None)


@at_most(2)
def check(services: Services, ids: Sequence[str]) -> list[str]:
    """Decide for those of ``ids`` that are due by the database's clock.

    Returns:
        The ids whose SMS is now reserved and wants to be sent.
    """
    with services.engine.begin() as conn:
        rows = store.due(conn, ids)
        if not rows:
            return []
        batches = store.contents(conn, (row.batch_id for row in rows))
        unconfirmed = _unconfirmed(services, conn, rows)
        cases = [_consider(services, row, batches[str(row.batch_id)], unconfirmed) for row in rows]
        _keep_suppressed(services, conn, [c for c in cases if c.reservation and c.row.user_id is None])
        _hold_quiet(services, conn, [c for c in cases if c.reservation and c.category is Category.MARKETING])
        asking = [case for case in cases if case.reservation]
        _apply_limits(services, conn, asking, rows[0].now)
        reservations = [c.reservation for c in asking if c.reservation and c.verdict in FALL_BACK]
        won = store.reserve(conn, sorted(reservations, key=lambda r: r.notification_id), services.settings.lease)
        link_store.insert(conn, [link for c in cases if c.id in won for link in c.links])
        waiting = [c.id for c in cases if c.verdict in _UNDECIDED]
        store.postpone(conn, [c.id for c in cases if c.verdict in _UNDECIDED - {Verdict.QUIET_HOURS}], _WAIT)
        store.write_ledger(conn, [c.decision() for c in cases if c.id in won])
        store.skip(conn, [c.decision() for c in cases if c.verdict not in FALL_BACK and c.id not in waiting])
    lost = [_ask(c, r) for c in asking if (r := c.reservation) and c.verdict in FALL_BACK and c.id not in won]
    release(services, lost, rows[0].now)
    log.info("fallbacks decided", due=len(rows), reserved=len(won), waiting=len(waiting))
    return sorted(won)


def hold_quiet(services: Services, conn: Connection, rows: Sequence[Row[Any]]) -> set[str]:
    """Hold marketing SMS whose recipients should sleep, until they should not; receipts may still end them.

    Args:
        rows: of ``notification_id, user_id, number, now``.

    Returns:
        The notification ids that are held now.
    """
    settings = services.settings
    if not rows or settings.quiet.start == settings.quiet.end:
        return set()
    stated = store.time_zones(conn, [row.user_id for row in rows if row.user_id])
    until = {}
    for row in rows:
        zones = zones_of(row.number, stated.get(row.user_id), settings.default_zone)
        if end := settings.quiet.end_of(row.now, zones):
            until[str(row.notification_id)] = end
    store.hold_until(conn, until)
    return set(until)


def count(
    services: Services, conn: Connection, asks: Sequence[Ask], categories: Sequence[Category], now: datetime
) -> list[Answer]:
    """Count SMS against their numbers. Without Redis, Postgres counts for all but marketing, which waits.

    Args:
        asks: one per message, oldest first.
        categories: each message's category.
        now: the database's clock.
    """
    try:
        return services.limits.count(conn, asks, now)
    except LimitsUnavailable:
        log.warning("limits counted in postgres", messages=len(asks))
    urgent = [a for a, c in zip(asks, categories, strict=True) if c is not Category.MARKETING]
    counted = dict(zip(urgent, count_in_postgres(conn, urgent, services.limits.limits, now), strict=True))
    return [counted.get(a, Answer(Verdict.LIMITS_UNAVAILABLE, 0)) for a in asks]


def release(services: Services, asks: Sequence[Ask], now: datetime) -> None:
    """Give counts back; failing to do so only makes the limits stricter, so it never stops anything."""
    if not asks:
        return
    try:
        services.limits.release(asks, now)
    except RedisError:
        log.warning("counts not released", messages=len(asks))


def _keep_suppressed(services: Services, conn: Connection, cases: Sequence[_Case]) -> None:
    """Respect the opt-outs of erased people. Users' numbers were asked for when they were bound; these were given inline."""
    gone = suppressed(conn, {case.row.number for case in cases}, services.limits.limits.secret)
    for case in cases:
        if case.row.number in gone:
            case.verdict, case.reservation = Verdict.OPTED_OUT, None


def _hold_quiet(services: Services, conn: Connection, cases: Sequence[_Case]) -> None:
    held = hold_quiet(services, conn, [case.row for case in cases])
    for case in cases:
        if case.id in held:
            case.verdict, case.reservation = Verdict.QUIET_HOURS, None


def _unconfirmed(services: Services, conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, list[str]]:
    """Return whose push went only to kinds of devices that never confirm one, and these kinds, where a policy cares."""
    if services.settings.unconfirmed_policy is UnconfirmedPolicy.TEXT:
        return {}
    open_ = [
        r for r in rows if r.trigger == When.NOT_DELIVERED and r.before == DeliveryState.SENT and r.after_step == 0
    ]
    ids = [str(r.notification_id) for r in open_ if r.delivered is None and r.clicked is None]
    return services.silent_kinds.among(conn, ids)


def _unconfirmed_verdict(case: _Case, settings: Settings, kinds: list[str] | None) -> Verdict:
    if case.verdict is not Verdict.NOT_DELIVERED or kinds is None:
        return case.verdict
    case.unconfirmed = {"policy": settings.unconfirmed_policy, "never_confirm": kinds}
    accepts = settings.unconfirmed_policy is UnconfirmedPolicy.ACCEPT
    return Verdict.ACCEPTED_UNCONFIRMED if accepts else Verdict.NOT_CLICKED


def _consider(services: Services, row: Row[Any], batch: Row[Any], unconfirmed: Mapping[str, list[str]]) -> _Case:
    settings = services.settings
    verdict = decide(
        Facts(
            when=row.trigger and When(row.trigger),
            before=row.before and DeliveryState(row.before),
            delivered=row.delivered is not None,
            clicked=row.clicked is not None,
            cancelled=row.cancelled is not None,
            follows_push=row.after_step == 0,
            undelivered=row.provider_status in LOST,
        )
    )
    case = _Case(row, Category(batch.category), verdict)
    case.verdict = _unconfirmed_verdict(case, settings, unconfirmed.get(case.id))
    if case.verdict in FALL_BACK:
        if row.channel == Channel.WHATSAPP and not settings.whatsapp_from:
            case.verdict = Verdict.NO_SENDER
        elif row.number is None:
            case.verdict = Verdict.NO_PHONE
        elif row.opted_out:
            case.verdict = Verdict.OPTED_OUT
        elif case.category is Category.MARKETING and not row.consented:
            case.verdict = Verdict.NO_CONSENT
        elif settings.sms_countries and country(row.number) not in settings.sms_countries:
            case.verdict = Verdict.COUNTRY_BLOCKED
        else:
            case.reservation = _reservation(services, case, batch)
    return case


def _reservation(services: Services, case: _Case, batch: Row[Any]) -> store.Reservation | None:
    links = services.links(case.id, case.row.step)
    try:
        step = batch.plan[case.row.step - 1] if batch.plan else None
        own = rendering.of(batch.content, case.row.locale)
        said = plans.words(step, *own, case.row.locale, case.row.params, links=links)
    except InvalidMessage:
        # It could be filled in when it was accepted, by another version of this program. It must not stop the others.
        case.verdict = Verdict.INVALID_CONTENT
        return None
    sender = said.sender or _usual_sender(case, batch, services.settings)
    same = said.text
    if links is not None and links.targets:
        case.links = [link_store.Link(t, case.id, case.row.step, target) for t, target in links.targets.items()]
        # Each message has links of its own; what they lead to tells whether it says the same.
        same = links.content(said.text)
    # Parts are what an SMS is paid by.
    size = sms_parts.count(said.text) if case.row.channel == Channel.SMS else 0
    return store.Reservation(case.id, case.row.number, said.text, fingerprint(same), size, sender)


def _usual_sender(case: _Case, batch: Row[Any], settings: Settings) -> str | None:
    if case.row.channel == Channel.WHATSAPP:
        return settings.whatsapp_from
    return batch.content.get("sender") or settings.twilio_from


def _ask(case: _Case, reservation: store.Reservation) -> Ask:
    """Return how a reservation counts against the limits of its number."""
    return Ask(
        case.id,
        reservation.number,
        reservation.fingerprint,
        reservation.parts,
        case.category,
        case.row.channel,
        case.row.step,
    )


def _apply_limits(services: Services, conn: Connection, cases: Sequence[_Case], now: datetime) -> None:
    asks = [_ask(c, r) for c in cases if (r := c.reservation)]
    answers = count(services, conn, asks, [c.category for c in cases], now)
    for case, ask, answer in zip(cases, asks, answers, strict=True):
        case.limits = answer.inputs(ask, services.limits.limits.budget)
        if answer.refusal:
            case.verdict = answer.refusal
