"""The events of notifications and numbers, each written once and in the order in which a notification had them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.database.test_rows import is_test, real_side
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.webhooks import heard
from knocktwice_worker.webhooks.endpoints import FOLLOWER
from knocktwice_worker.webhooks.facts import FACTS

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection, Engine

#: The longest span of a backlog that is read in one transaction.
_STRIDE = timedelta(minutes=5)

#: Whether an endpoint ``e`` is told of what belongs to a project: one of a project of nothing else, no alarms either;
#: one without a project of everything but tests, which an application might take for real.
_TOLD = "(e.project = {project} OR e.project IS NULL AND NOT {test})"


def _told(event: str) -> str:
    return _TOLD.format(project=f"{event}.project", test=is_test(f"{event}.project"))


# Only what is new is queued for the endpoints.
_QUEUE = f"""
INSERT INTO webhook_deliveries (
  endpoint_id,
  event_id,
  notification_id,
  next_at
)
SELECT
  e.id,
  r.id,
  r.notification_id,
  knocktwice_now()
FROM recorded r
JOIN webhook_endpoints e
  ON e.disabled_at IS NULL
  AND r.at >= e.since
  AND (e.events = '{{}}' OR r.type = ANY(e.events))
  AND {_told("r")}
"""

# A fact that was written before meets its own row.
_RECORD = text(f"""
WITH changed AS ({change_feed.CHANGED}),
facts AS ({FACTS}),
recorded AS (
  INSERT INTO webhook_events (
    notification_id,
    step,
    type,
    at,
    data,
    project
  )
  SELECT
    f.id,
    f.step,
    f.type,
    f.at,
    jsonb_build_object(
      'notification', f.id,
      'batch', n.batch_id,
      'category', b.category,
      'reference', b.reference
    ) || jsonb_strip_nulls(
      jsonb_build_object(
        'template', b.content->'template',
        'blast', bl.key,
        'project', {real_side("n.project")},
        'test', CASE WHEN {is_test("n.project")} THEN true END
      ) || f.more
    ),
    n.project
  FROM facts f
  JOIN notifications n ON n.id = f.id
  JOIN batches b ON b.id = n.batch_id
  LEFT JOIN blast_pages p ON p.id = n.batch_id
  LEFT JOIN blasts bl ON bl.id = p.blast_id
  WHERE f.at > :after AND f.at <= :until
  ORDER BY f.at, f.id, f.rank, f.step
  ON CONFLICT DO NOTHING
  RETURNING id, notification_id, type, at, project
)
{_QUEUE}""")

# An alarm has an id of its own in place of a notification's. A project is told of its own budget.
_RECORD_ALARMS = text(f"""
WITH recorded AS (
  INSERT INTO webhook_events (
    notification_id,
    step,
    type,
    at,
    data,
    project
  )
  SELECT subject, 0, type, at, data, data->>'project'
  FROM alarms
  WHERE at > :after AND at <= :until
  ORDER BY at
  ON CONFLICT DO NOTHING
  RETURNING id, notification_id, type, at, project
)
{_QUEUE}
""")


def _record(conn: Connection, after: datetime, until: datetime) -> None:
    conn.execute(_RECORD, {"after": after, "until": until})
    heard.record(conn, after, until)
    conn.execute(_RECORD_ALARMS, {"after": after, "until": until})


_IS_ANYBODY_TOLD = text("SELECT 1 FROM webhook_endpoints WHERE disabled_at IS NULL LIMIT 1")


def follow(engine: Engine) -> None:
    """Write down what has happened since the last time, and who is to be told. Without an endpoint nothing is done."""
    while _step(engine):
        pass


def _step(engine: Engine) -> bool:
    """Write down one stride; return whether there may be more."""
    with engine.begin() as conn:
        if not conn.execute(_IS_ANYBODY_TOLD).first():
            return False
        span = change_feed.window(conn, FOLLOWER, most=_STRIDE)
        if span is None:
            return False
        _record(conn, span.after, span.until)
        change_feed.seen(conn, FOLLOWER, span.until)
        return span.until - span.after >= _STRIDE


# The place of the follower is locked, so that no other worker writes down facts meanwhile.
_PLACE = text("SELECT seen_until FROM followers WHERE name = :name FOR UPDATE")

# An event that was taken before is due again, with no failed tries.
_AGAIN = f"""
INSERT INTO webhook_deliveries AS d (
  endpoint_id,
  event_id,
  notification_id,
  next_at
)
SELECT
  e.id,
  v.id,
  v.notification_id,
  knocktwice_now()
FROM webhook_events v
JOIN webhook_endpoints e
  ON e.disabled_at IS NULL
  AND (CAST(:endpoint AS text) IS NULL OR e.id = :endpoint)
  AND (e.events = '{{}}' OR v.type = ANY(e.events))
  AND {_told("v")}
WHERE %s
ON CONFLICT (endpoint_id, event_id) DO UPDATE SET
  next_at = knocktwice_now(),
  tries = 0,
  delivered_at = NULL,
  error = NULL
"""
_AGAIN_SINCE = text(_AGAIN % "v.at >= :since")
_AGAIN_ONE = text(_AGAIN % "v.notification_id = CAST(:notification AS uuid)")


def replay(
    conn: Connection, *, since: datetime | None = None, notification: str | None = None, endpoint: str | None = None
) -> int:
    """Tell again what happened since a time, or to a notification; return how many events are to be sent.

    Events keep their ids, so whoever took one before knows it. What happened when there was no endpoint is written down
    now.

    Args:
        endpoint: only to this one.
    """
    until = conn.execute(_PLACE, {"name": FOLLOWER}).scalar()
    if since is not None:
        if until is not None and since < until:
            _record(conn, since, until)
        return conn.execute(_AGAIN_SINCE, {"since": since, "endpoint": endpoint}).rowcount
    return conn.execute(_AGAIN_ONE, {"notification": notification, "endpoint": endpoint}).rowcount


_FORGET = text("DELETE FROM webhook_events WHERE at < knocktwice_now() - :older_than")


def forget(conn: Connection, older_than: timedelta) -> None:
    """Delete old events; those that still wait to be taken go as well."""
    conn.execute(_FORGET, {"older_than": older_than})


# A reason begins with a word of ours. What follows the colon may be a provider's, and quote a number.
_BLANK = text("""
UPDATE webhook_events v SET
  data = (v.data - 'devices')
    || jsonb_build_object('reference', CAST('{}' AS jsonb))
    || CASE
      WHEN v.data ? 'reason' THEN jsonb_build_object('reason', split_part(v.data->>'reason', ':', 1))
      ELSE '{}'
    END
    || CASE
      WHEN v.data ? 'steps' THEN jsonb_build_object('steps', (
        SELECT jsonb_agg(
          CASE
            WHEN s.step ? 'reason'
            THEN s.step || jsonb_build_object('reason', split_part(s.step->>'reason', ':', 1))
            ELSE s.step
          END ORDER BY s.place
        )
        FROM jsonb_array_elements(v.data->'steps') WITH ORDINALITY AS s(step, place)
      ))
      ELSE '{}'
    END
WHERE v.notification_id = ANY(CAST(:ids AS uuid[]))
""")


def erase(conn: Connection, notifications: Collection[str]) -> None:
    """Empty what is told of notifications by which one could tell whom they were for.

    The rows of the notifications are emptied in the same transaction. A follower that had read them before and writes
    afterwards would bring the old content back, so its place is locked first.
    """
    if notifications:
        conn.execute(_PLACE, {"name": FOLLOWER})
        conn.execute(_BLANK, {"ids": sorted(notifications)})
