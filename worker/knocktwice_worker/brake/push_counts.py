"""Counts the pushes slot by slot: fifteen seconds of hand-overs, when their receipts have had half a minute to come.

Each push is counted once. What is reported later does not count, now or in the past, so that like is compared with
like. Old slots are merged to hours, and later to days.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.brake import place
from knocktwice_worker.brake.judgement import Counts, Look, Scope
from knocktwice_worker.database import planner
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.notifications.store.braked import WATCHER, not_of_device

if TYPE_CHECKING:
    from sqlalchemy import Connection

SLOT = timedelta(seconds=15)
#: What is reported within this time after the hand-over counts.
SETTLE = timedelta(seconds=30)
#: A transaction that has written a receipt or a hand-over in time is committed a moment later.
_MARGIN = timedelta(seconds=5)
#: The latest pushes, among which a jump is seen at once.
RECENT = timedelta(minutes=1)
#: What is older says nothing of what is usual.
HISTORY = timedelta(days=14)

#: Why FCM refuses pushes for a mistake in our settings; see ``channels/fcm/answers.py``.
_OURS = "(a.reason LIKE 'FCM refuses our credentials%' OR a.reason LIKE 'FCM % says nothing of the device%')"

# A test tells nothing of devices. Pushes that FCM still refuses for a mistake in our settings count with the slot in
# which they were to go out. They are found by their devices: the index by the time at which they are tried again has an
# entry for whatever waits, and beside an old snapshot for whatever waited.
_COUNT = text(f"""
WITH p AS (
  SELECT notification_id, finished_at AS at, true AS ended FROM deliveries
  WHERE finished_at >= :after AND finished_at < :until AND step = 0 AND state IN ('sent', 'failed')
  UNION ALL
  SELECT r.notification_id, t.at, false
  FROM (SELECT DISTINCT notification_id FROM attempts a WHERE state = 'open' AND reason IS NOT NULL AND {_OURS}) w
  JOIN deliveries r ON r.notification_id = w.notification_id AND r.step = 0
  JOIN notifications n ON n.id = r.notification_id
  CROSS JOIN LATERAL (SELECT coalesce(r.due_at, n.created_at) AS at) t
  WHERE r.wake_at > knocktwice_now() - interval '1 minute' AND r.wake_at < knocktwice_now() + interval '5 minutes'
    AND r.claimed_at IS NOT NULL AND t.at >= :after AND t.at < :until
)
INSERT INTO push_counts (
  slot,
  template,
  platform,
  app_version,
  refused,
  sent,
  delivered,
  clicked
)
SELECT
  date_bin(:slot, p.at, :origin),
  coalesce(b.content ->> 'template', ''),
  coalesce(v.platform, 'unknown'),
  coalesce(v.app_version, ''),
  count(*) FILTER (WHERE a.state <> 'sent'),
  count(*) FILTER (WHERE a.state = 'sent'),
  count(*) FILTER (WHERE a.state = 'sent' AND e.delivered),
  count(*) FILTER (WHERE a.state = 'sent' AND e.clicked)
FROM p
JOIN notifications n ON n.id = p.notification_id AND NOT {is_test("n.project")}
JOIN batches b ON b.id = n.batch_id
JOIN attempts a ON a.notification_id = p.notification_id
  AND (
    a.state = 'sent' AND p.ended
    OR a.state = 'rejected' AND p.ended AND {not_of_device("a.reason")}
    OR a.state = 'open' AND NOT p.ended AND {_OURS}
  )
LEFT JOIN devices v ON v.registration = a.registration
CROSS JOIN LATERAL (
  SELECT
    bool_or(kind = 'delivered') AS delivered,
    bool_or(kind = 'clicked') AS clicked
  FROM events
  WHERE notification_id = p.notification_id
    AND step = 0
    AND registration IN (a.registration, '')
    AND received_at <= p.at + :settle
) e
GROUP BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
""")


def count(conn: Connection) -> bool | None:
    """Count the next slots, and lock the place of who counts until the end of the transaction.

    Returns:
        Whether all is counted; ``None``: another worker counts.
    """
    span = place.take(conn, WATCHER, slot=SLOT, settle=SETTLE + _MARGIN)
    if span is None:
        return None
    if span.until <= span.after:
        return True
    # The planner's statistics lag behind, so it expects many new rows and would scan whole tables.
    planner.by_index(conn)
    given = {"after": span.after, "until": span.until, "settle": SETTLE, "slot": SLOT, "origin": place.ORIGIN}
    conn.execute(_COUNT, given)
    place.move_on(conn, WATCHER, span.until)
    return span.last


# Slots of the last minute, of the window before it, and older ones. Those of known troubles say nothing of what is
# usual.
_LOOK = text("""
WITH place AS (SELECT seen_until AS until FROM followers WHERE name = :name)
SELECT
  template,
  platform,
  app_version,
  CASE
    WHEN slot >= place.until - :recent THEN 'recent'
    WHEN slot >= place.until - :window THEN 'window'
    ELSE 'history'
  END AS span,
  troubled,
  sum(refused),
  sum(sent),
  sum(delivered),
  sum(clicked)
FROM push_counts, place
WHERE slot >= place.until - :history AND NOT (troubled AND slot < place.until - :window)
GROUP BY 1, 2, 3, 4, 5
""")


def looks(conn: Connection, window: timedelta) -> tuple[Look, Look]:
    """Return what is to be compared: the last minute with all before it, and the window with all before it."""
    recent: dict[Scope, Counts] = {}
    all_now: dict[Scope, Counts] = {}
    before_recent: dict[Scope, Counts] = {}
    before_all: dict[Scope, Counts] = {}
    given = {"name": WATCHER, "recent": RECENT, "window": window, "history": HISTORY}
    for template, platform, version, span, troubled, *numbers in conn.execute(_LOOK, given):
        scope, counts = Scope(template, platform, version), Counts(*map(int, numbers))
        if span == "recent":
            recent[scope] = recent.get(scope, Counts()) + counts
        if span != "history":
            all_now[scope] = all_now.get(scope, Counts()) + counts
        if span == "history":
            before_all[scope] = before_all.get(scope, Counts()) + counts
        if span != "recent" and not troubled:
            before_recent[scope] = before_recent.get(scope, Counts()) + counts
    return (
        Look(recent, before_recent, RECENT.total_seconds()),
        Look(all_now, before_all, window.total_seconds()),
    )


# The pushes of a trouble are left out of what is usual for as long as it lasts, also while an operator lets their SMS
# go.
_MARK = text("""
UPDATE push_counts c SET troubled = true
FROM brakes k
WHERE NOT c.troubled
  AND k.kind <> 'pumping'
  AND c.slot >= k.counted_from
  AND (k.ended_at IS NULL OR k.state = 'released' AND c.slot < k.grace_until)
  AND (k.template IS NULL OR k.template = c.template)
  AND (k.platform IS NULL OR k.platform = c.platform)
  AND (k.app_version IS NULL OR k.app_version = c.app_version)
""")


def mark(conn: Connection) -> None:
    """Leave what the brakes cover out of what is usual."""
    conn.execute(_MARK)


_MERGE = """
WITH gone AS (
  DELETE FROM push_counts
  WHERE slot < knocktwice_now() - interval '{age}' AND slot <> date_trunc('{unit}', slot, 'UTC')
  RETURNING *
)
INSERT INTO push_counts AS c (
  slot,
  template,
  platform,
  app_version,
  refused,
  sent,
  delivered,
  clicked
)
SELECT
  date_trunc('{unit}', slot, 'UTC'),
  template,
  platform,
  app_version,
  sum(refused),
  sum(sent),
  sum(delivered),
  sum(clicked)
FROM gone
WHERE NOT troubled
GROUP BY 1, 2, 3, 4
ON CONFLICT (slot, template, platform, app_version) DO UPDATE SET
  refused = c.refused + excluded.refused,
  sent = c.sent + excluded.sent,
  delivered = c.delivered + excluded.delivered,
  clicked = c.clicked + excluded.clicked
"""
# What was counted in the midst of a trouble goes; so a row that others join is never such a one.
_TROUBLED = text("DELETE FROM push_counts WHERE troubled AND slot < knocktwice_now() - interval '3 hours'")
_TO_HOURS = text(_MERGE.format(age="3 hours", unit="hour"))
_TO_DAYS = text(_MERGE.format(age="2 days", unit="day"))
_FORGET = text("DELETE FROM push_counts WHERE slot < knocktwice_now() - :history")


def merge(conn: Connection) -> None:
    """Merge old slots, and forget those that are too old."""
    for statement in (_TROUBLED, _TO_HOURS, _TO_DAYS):
        conn.execute(statement)
    conn.execute(_FORGET, {"history": HISTORY})
