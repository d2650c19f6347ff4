"""Before a blast: how many it would reach in which way, and what the SMS would cost. Nothing is written and nobody notified.

People are grouped in SQL (by language, country, and what they can be sent), and the groups are read one by one; so a
million people need as much memory as a thousand.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, String, bindparam, case, cast, exists, func, literal_column, or_, select, text

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.messages import Category, Step, blast_batch, parse_batch
from knocktwice_worker import blasts, content, parts, template_table
from knocktwice_worker.quiet import zones_of
from knocktwice_worker.schema import deliveries, devices, opt_outs, phones, users
from knocktwice_worker.segment_sql import where
from knocktwice_worker.short_links import example

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Select

    from knocktwice_shared.messages import Blast, Push
    from knocktwice_worker.config import Settings
    from knocktwice_worker.limits import Limits
    from knocktwice_worker.segment_filter import Filter

#: Digits of a number, its plus included, from which its time zone can be told.
_PREFIX = 8
#: Price list entry for countries that have none of their own.
DEFAULT = "*"
#: A notification that is none.
_NOBODY = str(UUID(int=0))
#: Earlier blasts whose outcomes say what is to be expected.
_EARLIER = 3

# Of those whose push went out; who has no device is counted by itself.
_FELL_BACK = text("""
SELECT count(*) AS pushed, count(*) FILTER (WHERE n.state IN ('texted', 'unknown')) AS texted
FROM (
  SELECT id FROM blasts WHERE message -> 'content' ->> 'template' = :template AND state = 'finished'
  ORDER BY created_at DESC LIMIT :earlier
) b
JOIN blast_pages p ON p.blast_id = b.id AND p.sent_at IS NOT NULL
JOIN notifications n ON n.id > p.id AND n.id <= p.last_id AND n.batch_id = p.id AND n.state <> 'active'
JOIN deliveries d ON d.notification_id = n.id AND d.step = 0 AND d.state = 'sent'
""")


class OverBudget(KnocktwiceError):
    """The blast may cost more than allowed: raise the budget, or take fewer people."""


@dataclass(slots=True)
class Preflight:
    """What a blast would do now. Each person is counted once in ``push``, ``sms_only`` and ``unreachable``.

    Attributes:
        users: who belong.
        push: who have a device with notifications switched on.
        sms_only: who have none, and can be texted.
        unreachable: who can be sent neither, or nothing in their language.
        no_phone, opted_out, no_consent, country_blocked, capped: who cannot be texted, by the first reason that holds.
        quiet: who can be texted, but not at this hour.
        fallback_share: part of those with a push who are expected to be texted, 0 to 1.
        share_from: where that is from.
        expected_parts, expected_cost: of the SMS, if that comes true.
        worst_parts, worst_cost: if nobody answers the push.
        unpriced: countries that the price list does not name.
    """

    users: int = 0
    push: int = 0
    sms_only: int = 0
    unreachable: int = 0
    no_phone: int = 0
    opted_out: int = 0
    no_consent: int = 0
    country_blocked: int = 0
    capped: int = 0
    quiet: int = 0
    fallback_share: float = 1.0
    share_from: str = ""
    expected_parts: int = 0
    expected_cost: float = 0.0
    worst_parts: int = 0
    worst_cost: float = 0.0
    unpriced: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"unpriced": sorted(self.unpriced)}

    def require(self, *, parts: int | None, cost: float | None) -> None:
        """Compare the worst case with a budget.

        Raises:
            OverBudget: it is more, or cannot be known.
        """
        if parts is not None and self.worst_parts > parts:
            raise OverBudget(f"up to {self.worst_parts} SMS parts; the budget is {parts}")
        if cost is None:
            return
        if self.unpriced:
            missing = ", ".join(sorted(self.unpriced))
            raise OverBudget(f"no price for {missing}; add it, or {DEFAULT}, to KNOCKTWICE_SMS_PRICES")
        if self.worst_cost > cost:
            raise OverBudget(f"SMS for up to {self.worst_cost:.2f}; the budget is {cost:.2f}")


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is said to whom."""

    plan: tuple[Step, ...]
    category: Category
    #: Language → SMS; an inline content has one for all.
    parts: Mapping[str, int]
    choose: Any


def examine(
    conn: Connection, blast: Blast, settings: Settings, limits: Limits, *, share: float | None = None
) -> Preflight:
    """Look at what a blast would do.

    Args:
        limits: of the numbers.
        share: part of those with a push who will be texted, 0 to 1; ``None`` asks the latest blasts with this template,
            and expects the worst if there were none.

    Raises:
        InvalidMessage: it could not be started.
    """
    wanted = blasts.audience(conn, blast)
    blasts.check_content(conn, blast, example(settings))
    texts = _texts(conn, blast, settings)
    found = Preflight()
    found.fallback_share, found.share_from = _share(conn, blast, share)
    now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    _, day, _ = limits.day(now)
    groups = _groups(wanted, settings, texts.category, bool(texts.plan))
    values = {"since": day, "cap": limits.per_day or 1 << 30}
    rows = conn.execution_options(stream_results=True, yield_per=1_000).execute(groups, values)
    expected = 0.0
    for row in rows:
        expected += _count(found, row, texts, settings, now)
    found.expected_parts = round(expected)
    found.expected_cost, found.worst_cost = round(found.expected_cost, 4), round(found.worst_cost, 4)
    return found


def _count(found: Preflight, row: Any, texts: _Texts, settings: Settings, now: datetime) -> float:
    """Add a group of people who are alike; return the SMS parts to expect from them."""
    n = row.n
    found.users += n
    locale = texts.choose(row.locale)
    if locale is None:
        found.unreachable += n
        return 0.0
    textable = bool(texts.plan) and row.obstacle == ""
    if texts.plan and not textable:
        setattr(found, row.obstacle, getattr(found, row.obstacle) + n)
    if row.pushable:
        found.push += n
    elif textable:
        found.sms_only += n
    else:
        found.unreachable += n
    if not textable:
        return 0.0
    if texts.category is Category.MARKETING:
        zones = zones_of(row.number, row.zone, settings.default_zone)
        found.quiet += n if settings.quiet.end_of(now, zones) else 0
    country, all_parts = row.region or "", n * texts.parts[locale]
    price = settings.sms_prices.get(country, settings.sms_prices.get(DEFAULT))
    if price is None:
        found.unpriced.add(country or "numbers of no country")
    expected: float = all_parts * (found.fallback_share if row.pushable else 1.0)
    found.worst_parts += all_parts
    found.worst_cost += all_parts * (price or 0)
    found.expected_cost += expected * (price or 0)
    return expected


def _texts(conn: Connection, blast: Blast, settings: Settings) -> _Texts:
    values = blasts.values(blast.params)
    batch = parse_batch(blast_batch(blast.message, blast.params, _NOBODY, {_NOBODY: "somebody"}))
    if batch.push is not None:
        sms = _parts(batch.push, batch.sms_text, values, settings)
        return _Texts(batch.plan or (), batch.category or Category.TRANSACTIONAL, {"": sms}, lambda _: "")
    found = template_table.get(conn, blast.template or "")
    if found is None:
        raise InvalidMessage("template", f"there is none called {blast.template}")
    definition = found.definition
    plan = definition.plan if batch.plan is None or definition.fallback == "never" else batch.plan
    counted = {locale: _parts(*definition.content(locale), values, settings) for locale in definition.contents}
    return _Texts(plan, batch.category or definition.category, counted, definition.choose)


def _parts(push: Push, sms_text: str | None, values: Mapping[str, Any], settings: Settings) -> int:
    return parts.count(content.render(push, sms_text, values, example(settings)).sms)


def _share(conn: Connection, blast: Blast, share: float | None) -> tuple[float, str]:
    if share is not None:
        return share, "as you said"
    if blast.template is not None:
        seen = conn.execute(_FELL_BACK, {"template": blast.template, "earlier": _EARLIER}).one()
        if seen.pushed:
            return seen.texted / seen.pushed, f"the latest blasts with {blast.template}: {seen.texted} of {seen.pushed}"
    return 1.0, "the worst case, as no earlier blast with this template has finished"


def _groups(wanted: Filter, settings: Settings, category: Category, texting: bool) -> Select[Any]:
    """One row for people who are alike in all that counts, with how many they are and one of their numbers."""
    latest = (
        select(devices.c.locale)
        .where(devices.c.user_id == users.c.id, devices.c.locale.is_not(None))
        .order_by(devices.c.last_seen_at.desc())
        .limit(1)
        .correlate(users)
        .scalar_subquery()
    )
    pushable = exists().where(devices.c.user_id == users.c.id, devices.c.notifications_enabled).correlate(users)
    full = (
        select(deliveries.c.number)
        .where(
            deliveries.c.number.is_not(None),
            deliveries.c.counted_at >= bindparam("since"),
            deliveries.c.state.in_(["reserved", "sending", "sent", "unknown"]),
        )
        .group_by(deliveries.c.number)
        .having(func.count() >= bindparam("cap"))
        .subquery()
    )
    number = phones.c.number
    blocked = phones.c.region.not_in(sorted(settings.sms_countries)) if settings.sms_countries else None
    obstacles = [
        ("no_phone", number.is_(None)),
        ("opted_out", opt_outs.c.number.is_not(None)),
        ("no_consent", phones.c.consented_at.is_(None) if category is Category.MARKETING else None),
        ("country_blocked", or_(phones.c.region.is_(None), blocked) if blocked is not None else None),
        ("capped", full.c.number.is_not(None)),
    ]
    obstacle = case(*((holds, name) for name, holds in obstacles if holds is not None), else_="")
    # Where somebody lives counts only for marketing, and what their number says of it only if they have not said so.
    stated: Any = literal_column("NULL", String)
    prefix: Any = literal_column("NULL", String)
    if texting and category is Category.MARKETING:
        zone_of_device = (
            select(devices.c.time_zone)
            .where(devices.c.user_id == users.c.id, devices.c.time_zone.is_not(None))
            .order_by(devices.c.last_seen_at.desc())
            .limit(1)
            .correlate(users)
            .scalar_subquery()
        )
        stated = func.coalesce(zone_of_device, users.c.time_zone)
        prefix = case((stated.is_(None), func.left(number, _PREFIX)), else_=None)
    people = (
        select(
            func.coalesce(users.c.locale, latest).label("locale"),
            pushable.label("pushable"),
            obstacle.label("obstacle"),
            phones.c.region.label("region"),
            cast(stated, String).label("zone"),
            cast(prefix, String).label("prefix"),
            number.label("number"),
        )
        .select_from(
            users.outerjoin(phones, phones.c.user_id == users.c.id)
            .outerjoin(opt_outs, opt_outs.c.number == number)
            .outerjoin(full, full.c.number == number)
        )
        .where(where(wanted, joins=False))
        .subquery()
    )
    alike = [people.c[name] for name in ("locale", "pushable", "obstacle", "region", "zone", "prefix")]
    return select(*alike, func.count().label("n"), func.min(people.c.number).label("number")).group_by(*alike)
