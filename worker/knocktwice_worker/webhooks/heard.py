"""The events of numbers: what people write, and who opted out or in.

What somebody writes to a project's own sender, and an opt-out by it, is told to the project, too.

Who it is about stands in the rows of the text or the change, and is looked up when the event is sent. So an erasure of
these rows holds for events that still wait, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_worker.notation.masking import mask
from knocktwice_worker.webhooks.endpoints import INBOUND, OPTED_IN, OPTED_OUT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

# The events of one number go out in order, so their deliveries share an id: that of the first text or change of the
# number that is still there.
_RECORD = text(f"""
WITH heard AS (
  SELECT
    i.id,
    '{INBOUND}' AS type,
    i.received_at AS at,
    i.number,
    0 AS rank,
    i.project,
    jsonb_build_object(
      'inbound', i.id,
      'provider', i.provider,
      'channel', i.channel,
      'keyword', i.wish,
      'project', i.project,
      'notification', i.answers
    ) AS data
  FROM inbound_texts i
  WHERE i.received_at > :after AND i.received_at <= :until AND i.id IS NOT NULL

  UNION ALL
  SELECT
    c.id,
    CASE WHEN c.opted_out THEN '{OPTED_OUT}' ELSE '{OPTED_IN}' END,
    c.noted_at,
    c.number,
    1,
    i.project,
    jsonb_build_object('source', c.source, 'inbound', c.inbound_id, 'since', c.at, 'only', c.channel)
      || CASE
        WHEN i.id IS NULL THEN '{{}}'
        ELSE jsonb_build_object(
          'provider', i.provider,
          'channel', i.channel,
          'keyword', i.wish,
          'project', i.project
        )
      END
  FROM opt_out_changes c
  LEFT JOIN inbound_texts i ON i.id = c.inbound_id
  WHERE c.noted_at > :after AND c.noted_at <= :until AND c.changed
),
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
    id,
    0,
    type,
    at,
    data,
    project
  FROM heard
  ORDER BY at, rank, id
  ON CONFLICT DO NOTHING
  RETURNING id, notification_id, type, at, project
)
INSERT INTO webhook_deliveries (
  endpoint_id,
  event_id,
  notification_id,
  next_at
)
SELECT
  e.id,
  r.id,
  coalesce(first.id, r.notification_id),
  knocktwice_now()
FROM recorded r
JOIN heard h ON h.id = r.notification_id
JOIN webhook_endpoints e
  ON e.disabled_at IS NULL
  AND r.at >= e.since
  AND (e.events = '{{}}' OR r.type = ANY(e.events))
  AND (e.project IS NULL OR e.project = r.project)
LEFT JOIN LATERAL (
  SELECT f.id
  FROM (
    SELECT i.id, i.received_at AS at FROM inbound_texts i WHERE i.number = h.number AND i.id IS NOT NULL
    UNION ALL
    SELECT c.id, c.noted_at FROM opt_out_changes c WHERE c.number = h.number
  ) f
  WHERE h.number <> ''
  ORDER BY f.at, f.id
  LIMIT 1
) first ON true
""")


def record(conn: Connection, after: datetime, until: datetime) -> None:
    """Write down the events of numbers in a span of time, and who is to be told."""
    conn.execute(_RECORD, {"after": after, "until": until})


_ABOUT = text("""
SELECT
  h.id,
  h.number,
  h.sender,
  h.words,
  h.characters,
  (
    SELECT coalesce(array_agg(p.user_id ORDER BY p.user_id), '{}')
    FROM phones p
    WHERE p.number = h.number AND h.number <> ''
  ) AS users
FROM (
  SELECT id, number, sender, words, characters
  FROM inbound_texts
  WHERE id = ANY(CAST(:ids AS uuid[]))
  UNION ALL
  SELECT id, number, NULL, NULL, NULL
  FROM opt_out_changes
  WHERE id = ANY(CAST(:ids AS uuid[]))
) h
""")


def about(conn: Connection, ids: Collection[str]) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return for each text or change what every endpoint is told of its person, and what only personal ones are."""
    if not ids:
        return {}
    return {
        str(row.id): (
            {
                "number": mask(row.number),
                "users": list(row.users),
                **({} if row.characters is None else {"characters": row.characters}),
                **({} if row.sender is None else {"to": row.sender}),
            },
            {**({"phone": row.number} if row.number else {}), **({} if row.words is None else {"text": row.words})},
        )
        for row in conn.execute(_ABOUT, {"ids": sorted(ids)})
    }
