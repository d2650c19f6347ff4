"""Messages that a provider took and then failed for what the operator must mend: they are sent again, later.

A provider may report only after its acceptance that the account is suspended or the sender not registered. Such a report
means that the message went to nobody, and says nothing of the recipient. So the step is taken up again, in the same row
and with its place in the limits, and looked at like any reserved message before it goes: receipts, cancellations,
opt-outs, pauses, the night. The provider's ids of the failed messages stay in ``deliveries.lost_ids``, so that a repeated
report about one of them is not taken for a report about the next.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import LOST, DeliveryState, Note, NotificationState
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.receipts import lock_notes
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_shared.messages import Category

#: How often a message is sent again at most. Each time costs the provider's fee for a failed message.
MOST_AGAIN = 5
#: The wait before the first time; each next one is so many times as long.
_WAIT, _LONGER = timedelta(minutes=1), 4

_WHOSE = text("SELECT DISTINCT notification_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0")

# The deliveries are locked: ``provider_statuses.py`` has just written the reports. Only the step with which the
# notification ended is taken up: where the plan went on, the next step was made due by the same report. A receipt of
# the message itself says that it arrived after all.
_TAKE_UP = text(f"""
UPDATE deliveries d SET
  state = '{DeliveryState.RESERVED}',
  reason = r.reason,
  lost_ids = array_append(d.lost_ids, d.provider_id),
  provider_id = NULL,
  provider_status = NULL,
  provider_error = NULL,
  provider_error_text = NULL,
  provider_status_at = NULL,
  reported_at = NULL,
  missed_at = NULL,
  limited_repeats = 0,
  finished_at = NULL,
  heard_at = knocktwice_now(),
  wake_at = knocktwice_now() + :wait * power({_LONGER}, coalesce(cardinality(d.lost_ids), 0))
FROM {rows("r", id="text", reason="text")}
WHERE d.provider_id = r.id AND d.step > 0 AND d.state = '{DeliveryState.SENT}' AND d.steps_left = 0
  AND d.provider_status IN {words(sorted(LOST))}
  AND d.number IS NOT NULL AND d.text IS NOT NULL
  AND coalesce(cardinality(d.lost_ids), 0) < {MOST_AGAIN}
  AND EXISTS (
    SELECT
    FROM notifications n
    JOIN batches b ON b.id = n.batch_id
    JOIN {rows("u", category="text", useful_for="interval")} ON u.category = b.category
    WHERE n.id = d.notification_id AND n.state = '{NotificationState.TEXTED}'
      AND knocktwice_now() - d.due_at < coalesce(b.valid_for, u.useful_for)
  )
  AND NOT EXISTS (
    SELECT FROM events e WHERE e.notification_id = d.notification_id AND (e.step = d.step OR {ANSWERS})
  )
RETURNING
  d.notification_id,
  d.step,
  d.reason,
  d.provider,
  cardinality(d.lost_ids) AS time
""")

_REOPEN = text(f"""
UPDATE notifications SET
  state = '{NotificationState.ACTIVE}',
  reason = NULL,
  finished_at = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = '{NotificationState.TEXTED}'
""")


def take_up(conn: Connection, reports: Sequence[Row[Any]], useless_after: Mapping[Category, timedelta]) -> list[str]:
    """Let messages be sent again that failed for what the operator must mend, with their notifications.

    A message stays as it is if its plan went on, if somebody answered or cancelled, if it has been sent again
    :data:`MOST_AGAIN` times, or if it is of no use any more.

    Args:
        reports: stored reports that name what must be mended; written to their deliveries, which are locked.
        useless_after: how long after it was due a message may still go, by category.

    Returns:
        The ids of their notifications. Once this is committed, look whether anything said meanwhile stops them.
    """
    provider_ids = [r.provider_id for r in reports]
    # A receipt that comes at this moment notes no wasted message: it waits, and finds that the message is not sent.
    lock_notes(conn, [str(row.notification_id) for row in conn.execute(_WHOSE, {"ids": provider_ids})])
    # Sorted like the locks.
    won = sorted(
        conn.execute(
            _TAKE_UP,
            {
                "id": provider_ids,
                "reason": [r.operators for r in reports],
                "category": [str(category) for category in useless_after],
                "useful_for": list(useless_after.values()),
                "wait": _WAIT,
            },
        ).all(),
        key=lambda row: str(row.notification_id),
    )
    ids = [str(row.notification_id) for row in won]
    if not won:
        return ids
    conn.execute(_REOPEN, {"ids": ids})
    write_ledger(
        conn,
        [
            Decision(
                str(row.notification_id),
                Note.FAILED_LATER,
                {"provider": row.provider, "reason": row.reason, "time": row.time, "most": MOST_AGAIN},
                row.step,
            )
            for row in won
        ],
    )
    return ids
