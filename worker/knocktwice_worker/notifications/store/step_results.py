"""The provider's answers to claimed messages, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, text

from knocktwice_shared.records import record
from knocktwice_worker.audience import opt_outs, untextable
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import FOLLOW_UPS, DeliveryState, NotificationState, Untextable
from knocktwice_worker.notifications.store.ends import End, finish
from knocktwice_worker.notifications.store.receipts import note_wasted
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.transitions import Onward, go_on, settle_answered

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@record
class StepResult:
    """The result of a claimed message.

    Attributes:
        notification_id: whose.
        state: ``sent``, ``failed``, ``unknown``; ``reserved`` to send again after ``wake_after``; ``sending`` to look
            for it in the provider's list after ``wake_after``.
        reason: why it did not go, or how its outcome became known, for people.
        provider_id: the provider's id of the message.
        wake_after: how long to wait before the next look.
        provider: who sends it next, if that changes; see :func:`may_move`.
        opted_out: the provider refused it because the recipient asked not to be texted.
        untextable: the provider refused it because of the number, and why.
        missed: the provider's list answered without it for the first time since it was claimed.
        limited: it is sent again, and such repeats are counted.
    """

    notification_id: str
    state: DeliveryState
    reason: str | None = None
    provider_id: str | None = None
    wake_after: timedelta | None = None
    provider: str | None = None
    opted_out: bool = False
    untextable: Untextable | None = None
    missed: bool = False
    limited: bool = False


# A provider's id is unique among our messages, those included that failed and were sent again.
_KNOWN_IDS = text("""
SELECT provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0
UNION ALL
SELECT unnest(lost_ids) FROM deliveries WHERE lost_ids && CAST(:ids AS text[])
""")


def known_provider_ids(conn: Connection, provider_ids: Collection[str]) -> set[str]:
    """Return which of these provider's ids belong to our messages: the account may send others."""
    return {row.provider_id for row in conn.execute(_KNOWN_IDS, {"ids": list(provider_ids)})}


def with_ids_of_their_own(conn: Connection, results: Sequence[StepResult]) -> list[StepResult]:
    """Take away the ids of messages that another delivery has, too.

    A provider's id is read where the operator's provider file says it is. One wrong word in that file must not make it
    impossible to record what was sent.
    """
    taken = known_provider_ids(conn, [r.provider_id for r in results if r.provider_id])
    own: list[StepResult] = []
    for result in results:
        known = result.provider_id in taken
        own.append(replace(result, provider_id=None, reason="its id is not its own") if known else result)
        taken |= {result.provider_id} if result.provider_id else set()
    return own


# Only a claimed message is recorded: another worker may have settled it meanwhile. Nobody will report about a test.
_RECORD = text(f"""
UPDATE deliveries d SET
  state = r.state,
  reason = r.reason,
  provider_id = r.provider_id,
  wake_at = CASE WHEN r.state IN ('reserved', 'sending') THEN knocktwice_now() + r.wake_after END,
  finished_at = CASE WHEN r.state NOT IN ('reserved', 'sending') THEN knocktwice_now() END,
  reported_at = CASE WHEN r.state = 'sent' AND d.provider = '{STAND_IN}' THEN knocktwice_now() ELSE d.reported_at END
FROM {rows("r", id="uuid", state="text", reason="text", provider_id="text", wake_after="interval")}
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "sending")}
RETURNING
  d.notification_id,
  d.step,
  d.channel,
  d.steps_left,
  d.state,
  d.reason,
  d.number,
  d.trigger,
  d.provider
""")

# The next sender tries it by another provider.
_MOVE = text(f"""
UPDATE deliveries d SET provider = r.provider
FROM {rows("r", id="uuid", provider="text")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state = 'reserved'
""")

#: What a finished message makes of its notification.
_OUTCOMES = {
    DeliveryState.SENT: NotificationState.TEXTED,
    DeliveryState.UNKNOWN: NotificationState.UNKNOWN,
    DeliveryState.FAILED: NotificationState.FAILED,
}


def record_steps(conn: Connection, results: Sequence[StepResult]) -> list[str]:
    """Write the provider's answers to claimed messages; go on to the next steps or end the notifications.

    Returns:
        The ids of those that have something before them still, which :func:`look_again` wants when this is committed.
    """
    if not results:
        return []
    found = conn.execute(
        _RECORD,
        {
            "id": [r.notification_id for r in results],
            "state": [str(r.state) for r in results],
            "reason": [r.reason for r in results],
            "provider_id": [r.provider_id for r in results],
            "wake_after": [r.wake_after or timedelta() for r in results],
        },
    ).all()
    if moves := {r.notification_id: r.provider for r in results if r.provider is not None}:
        conn.execute(_MOVE, {"id": list(moves), "provider": list(moves.values())})
    opted_out = {r.notification_id for r in results if r.opted_out}
    if opted_out:
        numbers = {row.number for row in found if str(row.notification_id) in opted_out}
        # The provider knows of a STOP that never came to us.
        opt_outs.add(conn, numbers, "provider")
    if learned := {r.notification_id: r.untextable for r in results if r.untextable is not None}:
        failed = [(row, learned[str(row.notification_id)]) for row in found if str(row.notification_id) in learned]
        untextable.learn(conn, [(row.number, row.channel, why) for row, why in failed if row.number is not None])
    settled = [row for row in found if row.state in _OUTCOMES]
    finish(conn, [_end(row, opted_out) for row in settled if not row.steps_left])
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
        for row in found
        if row.state == DeliveryState.RESERVED or (row.steps_left and row.state in _OUTCOMES)
    ]


def _end(row: Row[Any], opted_out: Collection[str]) -> End:
    id_ = str(row.notification_id)
    outcome = NotificationState.SUPPRESSED if id_ in opted_out else _OUTCOMES[DeliveryState(row.state)]
    follow_up = row.trigger in FOLLOW_UPS and row.state == DeliveryState.SENT
    took = "only tested" if row.provider == STAND_IN else "accepted by the provider"
    return End(id_, outcome, row.reason or f"{row.channel} {took}", follow_up)


def look_again(engine: Engine, unfinished: Sequence[str], sent: Sequence[str]) -> None:
    """Look for receipts and cancellations that came while a sender had its messages, after the commit of its record.

    Receipts and cancellations do not wait for a sender. They found nothing to end, and the sender may have looked
    before they were committed; so each side looks once more than the other can miss.

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
