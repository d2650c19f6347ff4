"""Pushes that were due for so long that nobody needs them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import NotificationState, Refusal
from knocktwice_worker.notifications.store.ends import End, finish
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.transitions import lock_open, skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Engine

    from knocktwice_shared.messages import Category

# Read without locks: nearly always there is none, and a push that waits does not become younger.
_LATE = text(f"""
SELECT p.notification_id FROM deliveries p
JOIN notifications n ON n.id = p.notification_id AND n.state = 'active'
JOIN batches b ON b.id = n.batch_id
JOIN {rows("r", category="text", useful="interval")} ON r.category = b.category
WHERE p.notification_id = ANY(CAST(:ids AS uuid[])) AND p.step = 0 AND p.state = 'scheduled'
  AND coalesce(p.due_at, n.created_at) + coalesce(b.valid_for, r.useful) < knocktwice_now()
ORDER BY p.notification_id
""")

_END_PUSHES = text(f"""
UPDATE deliveries d SET
  state = 'skipped',
  reason = '{Refusal.TOO_LATE}',
  wake_at = NULL,
  finished_at = knocktwice_now()
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0 AND state = 'scheduled'
  ORDER BY notification_id FOR UPDATE
) late
WHERE d.notification_id = late.notification_id AND d.step = 0
RETURNING d.notification_id
""")

_OPEN_STEPS = text("""
SELECT notification_id, step FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
""")


def end_useless(engine: Engine, ids: Sequence[str], useful_for: Mapping[Category, timedelta]) -> None:
    """End the pushes among ``ids`` that wait and are too late, with all that was to follow them.

    It is a transaction of its own: whoever takes up pushes locks them in another order.

    Args:
        useful_for: how long after it was due a push may still go, by category.
    """
    categories = {"category": [str(c) for c in useful_for], "useful": list(useful_for.values())}
    with engine.begin() as conn:
        late = [str(row.notification_id) for row in conn.execute(_LATE, {"ids": list(ids), **categories})]
        if not late:
            return
        # Lock order: the open step before the push, notifications by id.
        lock_open(conn, late)
        ended = [str(row.notification_id) for row in conn.execute(_END_PUSHES, {"ids": late})]
        write_ledger(conn, [Decision(id_, Refusal.TOO_LATE, {}, 0) for id_ in ended])
        steps = conn.execute(_OPEN_STEPS, {"ids": ended}).all()
        skip(conn, [Decision(str(row.notification_id), Refusal.TOO_LATE, {}, row.step) for row in steps])
        finish(conn, [End(id_, NotificationState.SUPPRESSED, Refusal.TOO_LATE) for id_ in ended])
