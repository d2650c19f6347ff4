"""The outcomes of the notifications of one message, or of one blast, counted together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: Messages up to which all are counted; beyond it nobody pages.
COUNT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """A message of an application.

    Attributes:
        content: what was said; empty once it was deleted.
        reference: the application's own ids.
        send_at: when the first of it is to go out.
        finished_at: when the last of it ended; ``None``: something is open.
        project: to whom it belongs; ``None``: to no project.
    """

    id: UUID
    content: Mapping[str, Any]
    reference: Mapping[str, Any]
    ttl_s: float
    created_at: datetime
    send_at: datetime | None
    finished_at: datetime | None
    project: str | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many of the notifications got how far; one that was pushed and texted counts as both.

    Attributes:
        total: all of them.
        open: those that have not ended.
        pushed: a provider took the push.
        push_failed: no push could go out.
        texted: a provider took the text.
        text_failed: the text was refused, or did not arrive.
        unknown: the text may or may not have gone out.
        delivered: devices reported the push as delivered.
        clicked: somebody clicked or answered.
        cancelled: the application stopped them.
    """

    total: int = 0
    open: int = 0
    pushed: int = 0
    push_failed: int = 0
    texted: int = 0
    text_failed: int = 0
    unknown: int = 0
    delivered: int = 0
    clicked: int = 0
    cancelled: int = 0


_OUTCOMES = """
SELECT
  count(*) AS total,
  count(*) FILTER (WHERE n.state = 'active') AS open,
  count(*) FILTER (WHERE d.pushed) AS pushed,
  count(*) FILTER (WHERE d.push_failed) AS push_failed,
  count(*) FILTER (WHERE d.texted) AS texted,
  count(*) FILTER (WHERE d.text_failed) AS text_failed,
  count(*) FILTER (WHERE d.unknown) AS unknown,
  count(*) FILTER (WHERE e.delivered) AS delivered,
  count(*) FILTER (WHERE e.clicked) AS clicked,
  count(*) FILTER (WHERE n.state = 'cancelled') AS cancelled
FROM notifications n
LEFT JOIN LATERAL (
  SELECT
    bool_or(channel = 'push' AND state = 'sent') AS pushed,
    bool_or(channel = 'push' AND state = 'failed') AS push_failed,
    bool_or(channel <> 'push' AND state = 'sent') AS texted,
    bool_or(
      channel <> 'push' AND (state = 'failed' OR provider_status IN ('undelivered', 'failed'))
    ) AS text_failed,
    bool_or(channel <> 'push' AND state = 'unknown') AS unknown
  FROM deliveries
  WHERE notification_id = n.id
) d ON true
LEFT JOIN LATERAL (
  SELECT
    bool_or(kind = 'delivered' AND step = 0) AS delivered,
    bool_or(kind IN ('clicked', 'seen', 'replied')) AS clicked
  FROM events
  WHERE notification_id = n.id
) e ON true
"""
_OF_BATCHES = text(_OUTCOMES + "WHERE n.batch_id = ANY(CAST(:ids AS uuid[])) AND n.state <> 'duplicate'")
_OF_BLAST = text(
    _OUTCOMES
    + """
WHERE n.batch_id IN (
  SELECT p.id
  FROM blast_pages p
  WHERE p.blast_id = CAST(:id AS uuid) AND p.sent_at IS NOT NULL
)
"""
)


def of_batches(conn: Connection, ids: Sequence[UUID]) -> Outcomes:
    """Count the notifications of these batches. Reads all of them."""
    return Outcomes(**conn.execute(_OF_BATCHES, {"ids": [str(id_) for id_ in ids]}).one()._mapping)


def of_blast(conn: Connection, id_: str) -> Outcomes:
    """Count the notifications of a blast. Reads all of them."""
    return Outcomes(**conn.execute(_OF_BLAST, {"id": id_}).one()._mapping)


_MESSAGE = """
SELECT
  b.id,
  b.content,
  b.reference,
  extract(epoch FROM b.ttl) AS ttl_s,
  b.created_at,
  (
    SELECT min(d.due_at)
    FROM notifications n
    JOIN deliveries d ON d.notification_id = n.id
    WHERE n.batch_id = b.id AND d.step IN (0, 1) AND d.trigger IS NULL
  ) AS send_at,
  (
    SELECT CASE WHEN bool_and(n.finished_at IS NOT NULL) THEN max(n.finished_at) END
    FROM notifications n
    WHERE n.batch_id = b.id
  ) AS finished_at,
  (SELECT n.project FROM notifications n WHERE n.batch_id = b.id LIMIT 1) AS project
FROM batches b
"""
#: All notifications of a message are of one project.
_OWN = """ AND (
  CAST(:project AS text) IS NULL
  OR EXISTS (SELECT FROM notifications n WHERE n.batch_id = b.id AND n.project = :project)
)
"""
_ONE = text(_MESSAGE + "WHERE b.id = CAST(:id AS uuid)" + _OWN)


def find(conn: Connection, id_: UUID, project: str | None = None) -> Message | None:
    """Return a message; ``None``: there is none, or it is not written yet.

    Args:
        project: only one of this project; ``None``: anybody's.
    """
    row = conn.execute(_ONE, {"id": str(id_), "project": project}).first()
    return None if row is None else _message(row._mapping)


# Ids are of the time when a message was made, so the latest are at the end of the primary key.
_LATEST = text(
    _MESSAGE
    + """
WHERE NOT EXISTS (SELECT FROM blast_pages p WHERE p.id = b.id) AND NOT b.reference ? :part_of
"""
    + _OWN
    + """
ORDER BY b.id DESC
LIMIT :limit
"""
)


def latest(conn: Connection, limit: int, *, part_of: str, project: str | None = None) -> list[Message]:
    """Return the latest messages that are no pages of blasts, the last one first.

    Args:
        limit: most of them.
        part_of: a name in the reference of those that are parts of others, which are left out.
        project: only those of this project; ``None``: anybody's.
    """
    wanted = {"limit": limit, "part_of": part_of, "project": project}
    return [_message(row._mapping) for row in conn.execute(_LATEST, wanted)]


_COUNT = text(f"""
SELECT count(*)
FROM (
  SELECT FROM batches b
  WHERE NOT EXISTS (SELECT FROM blast_pages p WHERE p.id = b.id) AND NOT b.reference ? :part_of
  {_OWN}
  LIMIT :most
) bounded
""")


def count(conn: Connection, *, part_of: str, project: str | None = None) -> int:
    """Return how many messages there are that are no pages of blasts, up to :data:`COUNT_LIMIT`.

    Args:
        project: only those of this project; ``None``: anybody's.
    """
    wanted = {"part_of": part_of, "most": COUNT_LIMIT, "project": project}
    return int(conn.execute(_COUNT, wanted).scalar_one())


_OPEN = text("""
SELECT id
FROM notifications
WHERE batch_id = ANY(CAST(:ids AS uuid[])) AND state = 'active'
  AND (CAST(:project AS text) IS NULL OR project = :project)
ORDER BY id
""")


def open_of(conn: Connection, ids: Sequence[UUID], project: str | None = None) -> list[UUID]:
    """Return the notifications of these batches that have not ended, of one project or of all."""
    wanted = {"ids": [str(id_) for id_ in ids], "project": project}
    return [UUID(str(row.id)) for row in conn.execute(_OPEN, wanted)]


def _message(row: Mapping[Any, Any]) -> Message:
    return Message(**{**row, "id": UUID(str(row["id"])), "ttl_s": float(row["ttl_s"])})
