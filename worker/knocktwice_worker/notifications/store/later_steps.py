"""The messages of later steps: reserved, claimed, held while their provider is called, recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, text

from knocktwice_worker.lifecycle import DeliveryState, NotificationState, Verdict
from knocktwice_worker.notifications.store.receipts import note_wasted
from knocktwice_worker.notifications.store.transitions import ANSWERS, Onward, finish, go_on, is_in, settle_answered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class SmsResult:
    """What became of a claimed SMS.

    Attributes:
        state: ``sent``, ``failed``, ``unknown``; ``reserved`` to send again after ``wake_after``; ``sending`` to look for
            it in the provider's list after ``wake_after``.
        provider: who sends it next, if that changes; see :func:`may_move`.
    """

    notification_id: str
    state: DeliveryState
    reason: str | None = None
    provider_id: str | None = None
    wake_after: timedelta | None = None
    provider: str | None = None


class Placement(NamedTuple):
    """The provider chosen for a message, as it was when it had been tried so often."""

    provider: str
    tries: int


# Locked all at once and in the order in which receipts lock, so that the two wait for each other and never deadlock; and
# first of all, so that the claim sees every receipt committed until then, and nobody else takes a step meanwhile.
_RESERVED = text("""
WITH d AS (
  SELECT * FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'reserved'
  ORDER BY notification_id FOR UPDATE
)
SELECT d.notification_id, d.step, d.channel, n.user_id, d.number, d.text, d.fingerprint, d.parts, d.sender, d.provider, d.tries, b.category, o.number IS NOT NULL AS opted_out, knocktwice_now() AS now
FROM d JOIN notifications n ON n.id = d.notification_id JOIN batches b ON b.id = n.batch_id
LEFT JOIN opt_outs o ON o.number = d.number
ORDER BY d.counted_at, d.notification_id
""")

# With their providers. One that somebody else has tried since the choice was made is left to the next look at it: its
# outcome there may be unknown.
_CLAIM_SMS = text(f"""
UPDATE deliveries d SET state = 'sending', reason = NULL, tries = d.tries + 1, provider = r.provider,
  claimed_at = knocktwice_now(), counted_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
FROM unnest(CAST(:ids AS uuid[]), CAST(:providers AS text[]), CAST(:tries AS smallint[])) AS r(id, provider, tries)
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "reserved")} AND d.tries = r.tries
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {ANSWERS})
  AND NOT EXISTS (SELECT FROM opt_outs o WHERE o.number = d.number)
RETURNING d.notification_id, d.claimed_at
""")

# What was sent again because its outcome was lost may be at its provider already.
_PINNED = text("""
SELECT l.notification_id FROM decisions l
JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = l.step AND d.state = 'sending'
WHERE l.notification_id = ANY(CAST(:ids AS uuid[])) AND l.verdict = 'sent_again'
""")

_MOVE = text("""
UPDATE deliveries d SET provider = r.provider
FROM unnest(CAST(:ids AS uuid[]), CAST(:providers AS text[])) AS r(id, provider)
WHERE d.notification_id = r.id AND d.step > 0 AND d.state = 'reserved'
""")

_HOLD = text("""
SELECT notification_id, step, channel, number, text, sender, provider, tries, knocktwice_now() - due_at AS age FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'sending' AND claimed_at = :claimed_at
ORDER BY notification_id FOR UPDATE
""")

_UNRESOLVED = text("""
SELECT d.notification_id, d.step, d.channel, d.number, d.text, d.sender, d.provider, d.tries, d.reason, d.due_at, d.claimed_at, b.category, knocktwice_now() AS now
FROM deliveries d JOIN notifications n ON n.id = d.notification_id JOIN batches b ON b.id = n.batch_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
  AND (d.reason IS NOT NULL OR d.claimed_at + :lease <= knocktwice_now())
ORDER BY d.claimed_at, d.notification_id FOR UPDATE OF d SKIP LOCKED
""")

_TAKE_BACK = text("""
UPDATE deliveries SET state = 'sending'
WHERE (notification_id, step) IN (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[])))
  AND state = 'reserved'
""")

_RECORD_SMS = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.reason, provider_id = r.provider_id,
  wake_at = CASE WHEN r.state IN ('reserved', 'sending') THEN knocktwice_now() + r.wake_after END,
  finished_at = CASE WHEN r.state NOT IN ('reserved', 'sending') THEN knocktwice_now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:provider_ids AS text[]),
            CAST(:wake_after AS interval[])) AS r(id, state, reason, provider_id, wake_after)
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "sending")}
RETURNING d.notification_id, d.step, d.channel, d.steps_left, d.state, d.reason, d.number
""")

#: What a finished SMS makes of its notification.
_SMS_OUTCOMES = {
    DeliveryState.SENT: NotificationState.TEXTED,
    DeliveryState.UNKNOWN: NotificationState.UNKNOWN,
    DeliveryState.FAILED: NotificationState.FAILED,
}


def reserved(conn: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Lock and return the reserved SMS among ``ids``, oldest first, for the last look before the provider call."""
    return conn.execute(_RESERVED, {"ids": list(ids)}).all()


def claim_sms(
    conn: Connection, placements: Mapping[str, Placement], lease: timedelta
) -> tuple[list[str], datetime | None]:
    """Claim reserved SMS for sending unless a receipt, a cancellation or an opt-out came first. What was answered ends here.

    Ask :func:`reserved` for them before, in the same transaction: it locks them.

    Args:
        placements: notification id → by whom its message goes.
        lease: how long the claim lasts without an answer.

    Returns:
        The claimed ids and the claim's time, which :func:`hold` asks for: a sender that lost its claim cannot send.
    """
    ids = list(placements)
    places = {"providers": [p.provider for p in placements.values()], "tries": [p.tries for p in placements.values()]}
    rows = conn.execute(_CLAIM_SMS, {"ids": ids, "lease": lease, **places}).all()
    claimed = [str(row.notification_id) for row in rows]
    if missed := set(ids).difference(claimed):
        settle_answered(conn, sorted(missed))
    return claimed, rows[0].claimed_at if rows else None


def hold(conn: Connection, ids: Sequence[str], claimed_at: datetime) -> Sequence[Row[Any]]:
    """Lock claimed SMS for the time of the provider call: while the lock is held, their sender lives."""
    return conn.execute(_HOLD, {"ids": list(ids), "claimed_at": claimed_at}).all()


def may_move(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Return which claimed SMS that their providers did not take may go by another: no earlier try of them got lost."""
    pinned = {str(row.notification_id) for row in conn.execute(_PINNED, {"ids": list(ids)})}
    return [i for i in ids if i not in pinned]


def unresolved(conn: Connection, ids: Sequence[str], lease: timedelta) -> Sequence[Row[Any]]:
    """Lock and return claimed SMS whose sender is gone or got no clear answer."""
    return conn.execute(_UNRESOLVED, {"ids": list(ids), "lease": lease}).all()


def take_back(conn: Connection, ids: Sequence[str], steps: Sequence[int]) -> None:
    """Claim again what its provider has after all, and what somebody had already decided to send again."""
    conn.execute(_TAKE_BACK, {"ids": list(ids), "steps": list(steps)})


def with_ids_of_their_own(conn: Connection, results: Sequence[SmsResult]) -> list[SmsResult]:
    """Take away the ids of messages that another delivery has, too: a provider's id is read where a file says it is.

    One wrong word in that file must not make it impossible to record what was sent.
    """
    query = text("SELECT provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0")
    taken = {row.provider_id for row in conn.execute(query, {"ids": [r.provider_id for r in results if r.provider_id]})}
    own: list[SmsResult] = []
    for result in results:
        known = result.provider_id in taken
        own.append(replace(result, provider_id=None, reason="its id is not its own") if known else result)
        taken |= {result.provider_id} if result.provider_id else set()
    return own


def record_sms(conn: Connection, results: Sequence[SmsResult]) -> list[str]:
    """Write the provider's answers to claimed SMS, and go on to the next steps or end the notifications they settle.

    Returns:
        The ids of those that have something before them still, which :func:`look_again` wants when this is committed.
    """
    if not results:
        return []
    rows = conn.execute(
        _RECORD_SMS,
        {
            "ids": [r.notification_id for r in results],
            "states": [str(r.state) for r in results],
            "reasons": [r.reason for r in results],
            "provider_ids": [r.provider_id for r in results],
            "wake_after": [r.wake_after or timedelta() for r in results],
        },
    ).all()
    if moves := {r.notification_id: r.provider for r in results if r.provider is not None}:
        conn.execute(_MOVE, {"ids": list(moves), "providers": list(moves.values())})
    opted_out = sorted({row.number for row in rows if row.reason == Verdict.OPTED_OUT})
    if opted_out:
        add = text(
            "INSERT INTO opt_outs (number, source) SELECT unnest(CAST(:numbers AS text[])), 'provider' ON CONFLICT DO NOTHING"
        )
        conn.execute(add, {"numbers": opted_out})
    settled = [row for row in rows if row.state in _SMS_OUTCOMES]
    finish(
        conn,
        [
            (str(row.notification_id), _sms_outcome(row), row.reason or f"{row.channel} accepted by the provider")
            for row in settled
            if not row.steps_left
        ],
    )
    go_on(
        conn,
        [
            Onward(str(row.notification_id), row.step, row.step, at_once=row.state == DeliveryState.FAILED)
            for row in settled
            if row.steps_left
        ],
    )
    return [
        str(row.notification_id)
        for row in rows
        if row.state == DeliveryState.RESERVED or (row.steps_left and row.state in _SMS_OUTCOMES)
    ]


def look_again(engine: Engine, unfinished: Sequence[str], sent: Sequence[str]) -> None:
    """Look, when it is committed what became of messages, for what came while their sender had them.

    Receipts and cancellations do not wait for a sender. They found nothing to end, and the sender may have looked before they
    were committed; so each side looks once more than the other can miss.

    Args:
        unfinished: those that go on: a cancellation ends them now and not only when their time comes.
        sent: those that a receipt may show to have been needless.
    """
    if unfinished:
        with engine.begin() as conn:
            settle_answered(conn, unfinished)
    if sent:
        with engine.begin() as conn:
            note_wasted(conn, sent)


def _sms_outcome(row: Row[Any]) -> NotificationState:
    if row.reason == Verdict.OPTED_OUT:
        return NotificationState.SUPPRESSED
    return _SMS_OUTCOMES[DeliveryState(row.state)]
