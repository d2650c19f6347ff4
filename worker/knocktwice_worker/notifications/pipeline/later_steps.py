"""The second knock: claim with a lease, hold the row lock during the provider call, record the answer.

Twilio has no idempotency key, so exactly one SMS rests on these steps. The claim is committed before the call, so a worker
that dies leaves a trace; the lock is held during the call, so nobody mistakes a slow sender for a dead one; and what no
answer settles is looked up in the provider's own list (``reconcile.py``).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from knocktwice_shared.messages import Category, Channel
from knocktwice_worker.channels.http import backoff
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.content import sms_parts
from knocktwice_worker.lifecycle import DeliveryState, Verdict
from knocktwice_worker.limits.per_number import Ask
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import fallback
from knocktwice_worker.notifications.pipeline.concurrency import at_most

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from knocktwice_worker.channels.outbound.provider_choice import Choice
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: How soon after an unclear answer the provider's list is asked.
_LOOK_AFTER = timedelta(seconds=2)
#: When to look again while the limits cannot be counted.
_WAIT = timedelta(seconds=30)


@at_most(4)
def send(services: Services, ids: Sequence[str]) -> list[str]:
    """Send the reserved messages among ``ids``, each after a last look at receipts, opt-outs and limits.

    Returns:
        The notification ids of those that the provider took.
    """
    claimed, claimed_at, chosen = _claim(services, ids)
    if claimed_at is None:
        return []
    with services.senders.begin() as conn:
        held = store.hold(conn, claimed, claimed_at)
        outcomes = _deliver(services, held)
        give_up = timedelta(seconds=services.settings.sms_retry_s)
        results = [_result(row, outcome, give_up) for row, outcome in zip(held, outcomes, strict=True)]
        if chosen:
            results = store.with_ids_of_their_own(conn, _moved(services, conn, held, outcomes, results))
        unfinished = store.record_sms(conn, results)
    sent = [r.notification_id for r in results if r.state is DeliveryState.SENT]
    store.look_again(services.engine, unfinished, sent)
    _slow_down(services, held, outcomes)
    if services.providers:
        pairs = [(chosen.get(str(row.notification_id)), o) for row, o in zip(held, outcomes, strict=True)]
        services.providers.note([(choice.provider, choice.why, o) for choice, o in pairs if choice])
    log.info("sms handed over", claimed=len(claimed), sent=len(sent))
    return sent


def _slow_down(services: Services, held: Sequence[Row[Any]], outcomes: Sequence[Outcome]) -> None:
    by_sender: dict[tuple[str, str | None, str | None], list[Outcome]] = defaultdict(list)
    for row, outcome in zip(held, outcomes, strict=True):
        by_sender[row.channel, row.provider, row.sender].append(outcome)
    for (channel, provider, sender), own in by_sender.items():
        if asked := patience(own):
            services.pace(channel, sender, provider).slow_down(asked.after)


def _deliver(services: Services, held: Sequence[Row[Any]]) -> list[Outcome]:
    """Send through each message's own channel and provider; outcomes in the same order."""
    outcomes: dict[str, Outcome] = {}
    by_way: dict[tuple[str, str | None], list[Row[Any]]] = defaultdict(list)
    for row in held:
        by_way[row.channel, row.provider].append(row)
    for (channel, provider), rows in by_way.items():
        messages = [
            StepMessage(f"{row.notification_id}.{row.step}", to=row.number, text=row.text, sender=row.sender)
            for row in rows
        ]
        answers = deliver(services.transport, services.messaging(channel, provider), messages)
        outcomes |= {str(row.notification_id): answer for row, answer in zip(rows, answers, strict=True)}
    return [outcomes[str(row.notification_id)] for row in held]


def _moved(
    services: Services,
    conn: Connection,
    held: Sequence[Row[Any]],
    outcomes: Sequence[Outcome],
    results: Sequence[store.SmsResult],
) -> list[store.SmsResult]:
    """Hand on what a provider has not taken, for a reason of its own, to another one that works.

    Only what certainly was not sent goes on, and nothing of which an earlier try was lost.
    """
    rows = {str(row.notification_id): row for row in held}
    refused = {
        result.notification_id: outcome.reason
        for result, outcome in zip(results, outcomes, strict=True)
        if isinstance(outcome, Retry) and not outcome.too_fast and result.state is DeliveryState.RESERVED
    }
    refused = {i: reason for i, reason in refused.items() if rows[i].channel == Channel.SMS}
    if services.providers is None or not refused:
        return list(results)
    current = {i: rows[i].provider for i in refused}
    nexts = services.providers.another(store.may_move(conn, list(refused)), current)
    store.write_ledger(
        conn,
        [
            store.Decision(
                i,
                Verdict.PROVIDER_CHANGED,
                {"from": current[i], "to": to, "reason": refused[i]},
                rows[i].step,
            )
            for i, to in nexts.items()
        ],
    )
    return [_by(r, nexts[r.notification_id], services, rows) if r.notification_id in nexts else r for r in results]


def _by(result: store.SmsResult, provider: str, services: Services, rows: Mapping[str, Row[Any]]) -> store.SmsResult:
    # One that nobody took wanders around once, and then waits as long as any other.
    first_round = rows[result.notification_id].tries < len(services.providers or ())
    return replace(result, provider=provider, wake_after=timedelta() if first_round else result.wake_after)


def _claim(services: Services, ids: Sequence[str]) -> tuple[list[str], datetime | None, dict[str, Choice]]:
    with services.engine.begin() as conn:
        rows = store.reserved(conn, ids)
        if not rows:
            return [], None, {}
        opted_out = [row for row in rows if row.opted_out]
        store.skip(conn, [store.Decision(str(r.notification_id), Verdict.OPTED_OUT, {}, r.step) for r in opted_out])
        wanted = [row for row in rows if not row.opted_out]
        marketing = [row for row in wanted if Category(row.category) is Category.MARKETING]
        asleep = fallback.hold_quiet(services, conn, marketing)
        awake = [row for row in wanted if str(row.notification_id) not in asleep]
        chosen = _choose(services, awake)
        its_turn = _pace(services, conn, awake, chosen)
        allowed = _recount(services, conn, its_turn)
        if not services.providers:
            return *store.claim_sms(conn, allowed, services.settings.lease), {}
        places = {i: store.Placement(chosen[i].provider if i in chosen else None, tries) for i, tries in _tries(rows)}
        claimed, claimed_at = store.claim_sms(conn, allowed, services.settings.lease, places)
        steps = {str(row.notification_id): row.step for row in rows}
        store.write_ledger(
            conn,
            [
                store.Decision(i, Verdict.PROVIDER_CHOSEN, {"provider": one.provider, "why": one.why}, steps[i])
                for i in claimed
                if (one := chosen.get(i)) and one.why
            ],
        )
        return claimed, claimed_at, chosen


def _tries(rows: Sequence[Row[Any]]) -> list[tuple[str, int]]:
    return [(str(row.notification_id), row.tries) for row in rows]


def _choose(services: Services, rows: Sequence[Row[Any]]) -> dict[str, Choice]:
    """Choose the SMS providers, where there are several; WhatsApp has one."""
    if services.providers is None:
        return {}
    texts = [row for row in rows if row.channel == Channel.SMS]
    return services.providers.choose([(str(row.notification_id), row.provider, row.tries) for row in texts])


def _pace(
    services: Services, conn: Connection, rows: Sequence[Row[Any]], chosen: Mapping[str, Choice]
) -> Sequence[Row[Any]]:
    """Return those that their senders' paces have room for now; the others stay reserved and ring again."""
    by_sender: dict[tuple[str, str | None, str | None], list[Row[Any]]] = defaultdict(list)
    for row in rows:
        choice = chosen.get(str(row.notification_id))
        by_sender[row.channel, choice.provider if choice else None, row.sender].append(row)
    granted: list[Row[Any]] = []
    for (channel, provider, sender), waiting in by_sender.items():
        # A WhatsApp message has no parts, and counts as one.
        turn = services.pace(channel, sender, provider).take([_parts(row) or 1 for row in waiting])
        store.postpone(conn, [str(row.notification_id) for row in waiting[turn.granted :]], turn.wait)
        granted += waiting[: turn.granted]
    return granted


def _parts(row: Row[Any]) -> int:
    if row.parts is None:
        # One that an earlier release reserved.
        return sms_parts.count(row.text) if row.channel == Channel.SMS else 0
    return int(row.parts)


def _recount(services: Services, conn: Connection, rows: Sequence[Row[Any]]) -> list[str]:
    """Ask the limits again now that the reservations are committed: Redis may have been wiped since.

    For a message that is counted already this changes nothing but the moment from which its content holds the number.
    """
    if not rows:
        return []
    asks = [
        Ask(
            str(row.notification_id),
            row.number,
            bytes(row.fingerprint),
            _parts(row),
            Category(row.category),
            row.channel,
            row.step,
        )
        for row in rows
    ]
    answers = fallback.count(services, conn, asks, [Category(row.category) for row in rows], rows[0].now)
    paired = list(zip(asks, answers, strict=True))
    waiting = [a.notification_id for a, answer in paired if answer.refusal is Verdict.LIMITS_UNAVAILABLE]
    store.postpone(conn, waiting, _WAIT)
    store.skip(
        conn,
        [
            store.Decision(a.notification_id, answer.refusal, answer.inputs(a, services.limits.limits.budget), a.step)
            for a, answer in paired
            if answer.refusal and answer.refusal is not Verdict.LIMITS_UNAVAILABLE
        ],
    )
    return [a.notification_id for a, answer in paired if answer.refusal is None]


def _result(row: Row[Any], outcome: Outcome, give_up: timedelta) -> store.SmsResult:
    id_ = str(row.notification_id)
    match outcome:
        case Sent(provider_id):
            return store.SmsResult(id_, DeliveryState.SENT, provider_id=provider_id)
        case Rejected(reason, detail):
            text = f"{reason}: {detail}" if detail and reason != Verdict.OPTED_OUT else reason
            return store.SmsResult(id_, DeliveryState.FAILED, reason=text)
        case Retry(reason, after, _):
            if row.age > give_up:
                return store.SmsResult(id_, DeliveryState.FAILED, reason=f"gave up: {reason}")
            return store.SmsResult(id_, DeliveryState.RESERVED, reason=reason, wake_after=after or backoff(row.tries))
        case Unknown(reason, _):
            return store.SmsResult(id_, DeliveryState.SENDING, reason=reason, wake_after=_LOOK_AFTER)
