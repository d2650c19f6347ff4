"""The outcomes of the notifications of one request or one blast, counted by hour, action and channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID


class Count(NamedTuple):
    """A line of the count.

    Attributes:
        hour: when it happened, to the hour.
        channel: ``push``, ``sms``, …
        action: ``send``, ``delivery``, ``open`` or ``error``.
        messages: how many, each once.
    """

    hour: datetime
    channel: str
    action: str
    messages: int


# Devices report pushes, providers report messages, and both may say the same: each action of a step counts once, when
# it was known first.
_COUNT = """
WITH wanted AS MATERIALIZED ({wanted})
SELECT
  date_trunc('hour', once.at) AS hour,
  once.channel,
  once.action,
  CAST(count(*) AS integer) AS messages
FROM (
  SELECT
    what.notification_id,
    what.step,
    what.channel,
    what.action,
    min(what.at) AS at
  FROM (
    SELECT
      d.notification_id,
      d.step,
      d.channel,
      'send' AS action,
      d.finished_at AS at
    FROM deliveries d
    JOIN wanted w ON w.id = d.notification_id
    WHERE d.state = 'sent'
    UNION ALL
    SELECT
      d.notification_id,
      d.step,
      d.channel,
      'error' AS action,
      coalesce(d.provider_status_at, d.finished_at) AS at
    FROM deliveries d
    JOIN wanted w ON w.id = d.notification_id
    WHERE d.state IN ('failed', 'unknown') OR d.provider_status IN ('undelivered', 'failed')
    UNION ALL
    SELECT
      d.notification_id,
      d.step,
      d.channel,
      'delivery' AS action,
      d.provider_status_at AS at
    FROM deliveries d
    JOIN wanted w ON w.id = d.notification_id
    WHERE d.provider_status IN ('delivered', 'read')
    UNION ALL
    SELECT
      d.notification_id,
      d.step,
      d.channel,
      CASE e.kind WHEN 'clicked' THEN 'open' ELSE 'delivery' END AS action,
      e.received_at AS at
    FROM events e
    JOIN wanted w ON w.id = e.notification_id
    JOIN deliveries d ON d.notification_id = e.notification_id AND d.step = e.step
    WHERE e.kind IN ('delivered', 'clicked')
  ) what
  GROUP BY 1, 2, 3, 4
) once
WHERE once.at IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
"""
_OF_IDS = text(_COUNT.format(wanted="SELECT unnest(CAST(:ids AS uuid[])) AS id"))
_OF_BLAST = text(
    _COUNT.format(
        wanted="""
  SELECT n.id
  FROM blast_pages p
  JOIN notifications n ON n.id > p.id AND n.id <= p.last_id AND n.batch_id = p.id
  WHERE p.blast_id = :blast AND p.sent_at IS NOT NULL
"""
    )
)


def of_ids(conn: Connection, ids: Sequence[UUID]) -> list[Count]:
    """Count what became of notifications."""
    return [Count(*row) for row in conn.execute(_OF_IDS, {"ids": [str(id_) for id_ in ids]})]


def of_blast(conn: Connection, blast: UUID) -> list[Count]:
    """Count what became of a blast's notifications. Reads all of them."""
    return [Count(*row) for row in conn.execute(_OF_BLAST, {"blast": str(blast)})]
