"""The end of notifications: with which state, and what becomes of a push that still waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import ANSWERED_LATER, DeliveryState, NotificationState, Verdict
from knocktwice_worker.notifications.store.trigger_sql import FOLLOW_UPS, OPENED, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@record
class End:
    """The end of a notification.

    Attributes:
        notification_id: the notification.
        state: a terminal state.
        reason: the reason, for people.
        follow_up: what ended is a message that followed a success. A click, or a receipt that it was seen elsewhere,
            makes the notification ``reached`` then.
    """

    notification_id: str
    state: NotificationState
    reason: str
    follow_up: bool = False


def outcome_of_push(push: DeliveryState) -> NotificationState:
    """Return the final state of a notification that consists only of a push in this state."""
    match push:
        case DeliveryState.SENT:
            return NotificationState.PUSHED
        case DeliveryState.SKIPPED:
            return NotificationState.SUPPRESSED
        case _:
            return NotificationState.FAILED


#: What a later step that has ended makes of a notification behind which nothing comes.
_OUTCOME_OF_STEP: Mapping[DeliveryState, NotificationState] = {
    DeliveryState.SENT: NotificationState.TEXTED,
    DeliveryState.FAILED: NotificationState.FAILED,
    DeliveryState.UNKNOWN: NotificationState.UNKNOWN,
    DeliveryState.SKIPPED: NotificationState.SUPPRESSED,
    DeliveryState.CANCELLED: NotificationState.CANCELLED,
}


_BEFORE = text(f"""
SELECT
  d.notification_id,
  d.step,
  d.state,
  d.reason
FROM {rows("r", id="uuid", step="smallint")}
JOIN deliveries d ON d.notification_id = r.id AND d.step = r.step
""")


def ends_before(conn: Connection, after: Mapping[str, int]) -> list[End]:
    """Return the ends of notifications whose last step has nothing to follow: what the step before it made of them.

    Args:
        after: notification id → the step before.
    """
    if not after:
        return []
    found = conn.execute(_BEFORE, {"id": list(after), "step": list(after.values())})
    return [
        End(
            str(row.notification_id),
            outcome_of_push(DeliveryState(row.state)) if row.step == 0 else _OUTCOME_OF_STEP[DeliveryState(row.state)],
            row.reason or Verdict.NO_RECEIPT,
        )
        for row in found
    ]


# A notification that has ended never changes again. A message that went out is never hidden behind what stopped the
# steps after it; one that followed a click hides the click as little.
_FINISH = text(f"""
UPDATE notifications n SET
  state = CASE
    WHEN m.fell_back THEN '{NotificationState.TEXTED}'
    WHEN e.kind IS NOT NULL THEN '{NotificationState.REACHED}'
    WHEN m.fell_back IS NOT NULL THEN '{NotificationState.TEXTED}'
    ELSE r.state
  END,
  reason = CASE WHEN m.fell_back IS NOT TRUE THEN coalesce(e.kind, r.reason) ELSE r.reason END,
  finished_at = knocktwice_now()
FROM {rows("r", id="uuid", state="text", reason="text", follow_up="boolean")}
CROSS JOIN LATERAL (
  SELECT min(e.kind) AS kind FROM events e
  WHERE e.notification_id = r.id AND e.kind IN {OPENED}
    AND (r.follow_up OR r.state IN {words(sorted(ANSWERED_LATER))})
) e
LEFT JOIN LATERAL (
  SELECT bool_or(coalesce(d.trigger NOT IN {FOLLOW_UPS}, true)) AS fell_back FROM deliveries d
  WHERE r.state IN ('cancelled', 'suppressed', 'failed')
    AND d.notification_id = r.id AND d.step > 0 AND d.state = 'sent' AND d.channel <> 'push'
) m ON true
WHERE n.id = r.id AND n.state = 'active'
""")

# Ended ones become reached at once. Those that end at this moment are named: whoever ends them may not see the click.
_REACH = text(f"""
WITH reached AS (
  UPDATE notifications n SET
    state = '{NotificationState.REACHED}',
    reason = (SELECT min(e.kind) FROM events e WHERE e.notification_id = n.id AND e.kind IN {OPENED})
  FROM (
    SELECT id FROM notifications
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state IN {words(sorted(ANSWERED_LATER))}
    ORDER BY id FOR UPDATE
  ) ended
  WHERE n.id = ended.id
)
SELECT n.id FROM notifications n
WHERE n.id = ANY(CAST(:ids AS uuid[])) AND n.state = 'active' AND NOT EXISTS (
  SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.step > 0 AND d.wake_at IS NOT NULL)
""")

# A transaction that ends a notification keeps its row locked until the commit. This waits for it, so that the next look
# sees the end.
_AWAIT_END = text("SELECT FROM notifications WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE")


def reach(conn: Connection, ids: Sequence[str]) -> None:
    """Make notifications ``reached`` that had ended without an answer, and that somebody has clicked or seen since."""
    if not ids:
        return
    ending = [str(row.id) for row in conn.execute(_REACH, {"ids": list(ids)})]
    if ending:
        conn.execute(_AWAIT_END, {"ids": ending})
        conn.execute(_REACH, {"ids": ending})


# Lock order: by notification id, like claim_push.
_DROP_PUSH = text("""
UPDATE deliveries d SET
  wake_at = NULL,
  finished_at = knocktwice_now(),
  state = CASE WHEN d.notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'skipped' END,
  reason = CASE WHEN d.notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'superseded' END
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0 AND state = 'scheduled'
  ORDER BY notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 0
""")


def finish(conn: Connection, ends: Sequence[End]) -> None:
    """End notifications, and cancel or skip their pushes that still wait for another try."""
    if not ends:
        return
    # In the order in which clicks lock them.
    ends = sorted(ends, key=lambda end: end.notification_id)
    ids = [end.notification_id for end in ends]
    conn.execute(
        _FINISH,
        {
            "id": ids,
            "state": [str(end.state) for end in ends],
            "reason": [end.reason for end in ends],
            "follow_up": [end.follow_up for end in ends],
        },
    )
    cancelled = [end.notification_id for end in ends if end.state is NotificationState.CANCELLED]
    conn.execute(_DROP_PUSH, {"ids": ids, "cancelled": cancelled})
