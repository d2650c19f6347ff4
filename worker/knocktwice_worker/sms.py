"""The second knock: claim with a lease, hold the row lock during the provider call, record the answer.

Twilio has no idempotency key, so exactly one SMS rests on these steps. The claim is committed before the call, so a worker
that dies leaves a trace; the lock is held during the call, so nobody mistakes a slow sender for a dead one; and what no
answer settles is looked up in the provider's own list (``reconcile.py``).
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from knocktwice_shared.messages import Category, Channel
from knocktwice_worker import fallback, parts, store
from knocktwice_worker.channels import Outcome, Rejected, Retry, Sent, SmsMessage, Unknown, deliver, patience
from knocktwice_worker.combine import at_most
from knocktwice_worker.lifecycle import DeliveryState, Verdict
from knocktwice_worker.limits import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: First wait before another try when the provider names none; doubled with each try up to the cap.
_BACKOFF, _BACKOFF_CAP = timedelta(seconds=2), timedelta(minutes=5)
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
    claimed, claimed_at = _claim(services, ids)
    if claimed_at is None:
        return []
    with services.senders.begin() as conn:
        held = store.hold(conn, claimed, claimed_at)
        outcomes = _deliver(services, held)
        give_up = timedelta(seconds=services.settings.sms_retry_s)
        results = [_result(row, outcome, give_up) for row, outcome in zip(held, outcomes, strict=True)]
        store.record_sms(conn, results)
    for channel, sender in {(row.channel, row.sender) for row in held}:
        own = [o for row, o in zip(held, outcomes, strict=True) if (row.channel, row.sender) == (channel, sender)]
        if asked := patience(own):
            services.pace(channel, sender).slow_down(asked.after)
    sent = [r.notification_id for r in results if r.state is DeliveryState.SENT]
    log.info("sms handed over", claimed=len(claimed), sent=len(sent))
    return sent


def _deliver(services: Services, held: Sequence[Row[Any]]) -> list[Outcome]:
    """Send through each message's own channel; outcomes in the same order."""
    outcomes: dict[str, Outcome] = {}
    for channel in sorted({row.channel for row in held}):
        rows = [row for row in held if row.channel == channel]
        messages = [
            SmsMessage(f"{row.notification_id}.{row.step}", to=row.number, text=row.text, sender=row.sender)
            for row in rows
        ]
        answers = deliver(services.transport, services.messaging(channel), messages)
        outcomes |= {str(row.notification_id): answer for row, answer in zip(rows, answers, strict=True)}
    return [outcomes[str(row.notification_id)] for row in held]


def _claim(services: Services, ids: Sequence[str]) -> tuple[list[str], datetime | None]:
    with services.engine.begin() as conn:
        rows = store.reserved(conn, ids)
        if not rows:
            return [], None
        opted_out = [row for row in rows if row.opted_out]
        store.skip(conn, [store.Decision(str(r.notification_id), Verdict.OPTED_OUT, {}) for r in opted_out])
        wanted = [row for row in rows if not row.opted_out]
        marketing = [row for row in wanted if Category(row.category) is Category.MARKETING]
        asleep = fallback.hold_quiet(services, conn, marketing)
        its_turn = _pace(services, conn, [row for row in wanted if str(row.notification_id) not in asleep])
        allowed = _recount(services, conn, its_turn)
        store.settle_answered(conn, allowed)
        return store.claim_sms(conn, allowed, services.settings.lease)


def _pace(services: Services, conn: Connection, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Return those that their senders' paces have room for now; the others stay reserved and ring again."""
    by_sender: dict[tuple[str, str | None], list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_sender[row.channel, row.sender].append(row)
    granted: list[Row[Any]] = []
    for (channel, sender), waiting in by_sender.items():
        # A WhatsApp message has no parts, and counts as one.
        turn = services.pace(channel, sender).take([_parts(row) or 1 for row in waiting])
        store.postpone(conn, [str(row.notification_id) for row in waiting[turn.granted :]], turn.wait)
        granted += waiting[: turn.granted]
    return granted


def _parts(row: Row[Any]) -> int:
    if row.parts is None:
        # One that an earlier release reserved.
        return parts.count(row.text) if row.channel == Channel.SMS else 0
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
            store.Decision(a.notification_id, answer.refusal, answer.inputs(a, services.limits.limits.budget))
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
            wait = after or min(_BACKOFF * 2 ** min(row.tries, 10), _BACKOFF_CAP)
            return store.SmsResult(id_, DeliveryState.RESERVED, reason=reason, wake_after=wait)
        case Unknown(reason, _):
            return store.SmsResult(id_, DeliveryState.SENDING, reason=reason, wake_after=_LOOK_AFTER)
