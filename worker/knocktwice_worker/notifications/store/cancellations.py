"""Cancellations: carried out on notifications that exist, and remembered for notifications that do not exist yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.notifications.store.receipts import Event, insert_events
from knocktwice_worker.notifications.store.transitions import End, finish, settle_answered
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


def cancel(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> None:
    """Stop notifications at any point before the provider call. Unknown ids are remembered.

    A message that a sender has claimed is not stopped, and a push that was sent is not called back. Rows that another
    transaction is writing at this moment are not stopped, either: to stop them, commit the events of
    :func:`note_cancelled` and then call :func:`settle_cancelled`.
    """
    _stop(conn, note_cancelled(conn, ids, keys, now))


# A key of another installation, or of a notification that does not exist yet, matches no row.
_WITH_KEYS = text("SELECT id FROM notifications WHERE key = ANY(:keys)")


def note_cancelled(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> list[str]:
    """Remember these notifications as cancelled, known or not, and return their ids, sorted."""
    found = conn.execute(_WITH_KEYS, {"keys": list(keys)})
    wanted = sorted({*ids, *(str(row.id) for row in found)})
    insert_events(conn, [Event(i, CANCELLED, "", now, 0) for i in wanted])
    return wanted


# Finds the few cancelled notifications among the many ids that a caller has just written.
_CANCELLED_AMONG = text(f"""
SELECT notification_id FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND kind = '{CANCELLED}'
""")


def settle_cancelled(conn: Connection, ids: Sequence[str]) -> None:
    """Stop the cancelled ones among ``ids``. A canceller and a writer of rows both call it after their commit."""
    found = conn.execute(_CANCELLED_AMONG, {"ids": list(ids)})
    if wanted := sorted({str(row.notification_id) for row in found}):
        _stop(conn, wanted)


# Usually a push is stopped together with its later steps. This statement stops a push without later steps, and a push
# that was being sent while its later steps ended and is now to be tried again.
_CANCEL_PUSH = text("""
UPDATE deliveries d SET
  state = 'cancelled',
  reason = 'cancelled',
  wake_at = NULL,
  finished_at = knocktwice_now()
FROM (
  SELECT p.notification_id FROM deliveries p
  WHERE p.notification_id = ANY(CAST(:ids AS uuid[])) AND p.step = 0 AND p.state = 'scheduled'
    AND (NOT EXISTS (SELECT FROM deliveries s WHERE s.notification_id = p.notification_id AND s.step = 1)
      OR EXISTS (SELECT FROM notifications n WHERE n.id = p.notification_id AND n.state <> 'active'))
  ORDER BY p.notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 0
RETURNING d.notification_id
""")


def _stop(conn: Connection, ids: Sequence[str]) -> None:
    settle_answered(conn, ids)
    stopped = conn.execute(_CANCEL_PUSH, {"ids": list(ids)}).all()
    finish(conn, [End(str(row.notification_id), NotificationState.CANCELLED, "cancelled") for row in stopped])
