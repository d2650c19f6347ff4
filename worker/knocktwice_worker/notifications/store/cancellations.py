"""Cancellations: carried out on notifications that exist, and remembered for notifications that do not exist yet.

A project may cancel only its own notifications. Of a notification that does not exist yet nobody knows whose it will
be, so the cancellation of a project is remembered under an id that only this project's notification of that id looks
for. It is the same whether the id is unknown or another project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from sqlalchemy import Connection, text

from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.notifications.store.ends import End, finish
from knocktwice_worker.notifications.store.receipts import Event, insert_events
from knocktwice_worker.notifications.store.transitions import settle_answered
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED, aborted_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: The namespace of the ids under which cancellations of projects are remembered.
_REMEMBERED = UUID("0f5c8e5e-9f2b-5d0a-8a53-6b6e6f636b32")


def cancel(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> None:
    """Stop notifications at any point before the provider call. Unknown ids are remembered.

    A message that a sender has claimed is not stopped, and a push that was sent is not called back. Rows that another
    transaction is writing at this moment are not stopped, either: to stop them, commit the events of
    :func:`note_cancelled` and then call :func:`settle_cancelled`.
    """
    _stop(conn, note_cancelled(conn, ids, keys, now))


# A key of another installation or project, or of a notification that does not exist yet, matches no row.
_WITH_KEYS = text("""
SELECT id FROM notifications WHERE key = ANY(:keys) AND project IS NOT DISTINCT FROM CAST(:project AS text)
""")
_OWN = text("SELECT id FROM notifications WHERE id = ANY(CAST(:ids AS uuid[])) AND project = :project")


def note_cancelled(
    conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime, project: str | None = None
) -> list[str]:
    """Remember these notifications as cancelled, known or not, and return their ids, sorted.

    Args:
        project: whose notifications may be cancelled; ``None``: by id anybody's, by key those without a project.
    """
    found = {str(row.id) for row in conn.execute(_WITH_KEYS, {"keys": list(keys), "project": project})}
    wanted = sorted({*ids, *found})
    if project is None:
        insert_events(conn, [Event(i, CANCELLED, "", now, 0) for i in wanted])
        return wanted
    found |= {str(row.id) for row in conn.execute(_OWN, {"ids": list(ids), "project": project})}
    names = [i if i in found else _remembered(i, project) for i in wanted]
    insert_events(conn, [Event(name, CANCELLED, "", now, 0) for name in names])
    return wanted


_WAITING = text(f"""
SELECT
  notification_id,
  at
FROM events
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND kind = '{CANCELLED}'
""")


_OWN_AMONG = text("""
SELECT n.id
FROM unnest(CAST(:ids AS uuid[]), CAST(:projects AS text[])) AS asked(id, project)
JOIN notifications n ON n.id = asked.id AND n.project = asked.project
""")


def adopt_cancelled(conn: Connection, projects: Mapping[str, str]) -> list[str]:
    """Let the cancellations that projects sent ahead of their notifications count for these; return these, sorted.

    A writer and a canceller may not see each other's transaction, so both call it after their commit; the writer also
    when it has written the rows.

    Args:
        projects: notification id → project. A notification that is not there or another's is left alone.
    """
    names = {_remembered(id_, project): id_ for id_, project in projects.items()}
    waiting = {names[str(row.notification_id)]: row.at for row in conn.execute(_WAITING, {"ids": list(names)})}
    if not waiting:
        return []
    asked = {"ids": list(waiting), "projects": [projects[id_] for id_ in waiting]}
    own = sorted(str(row.id) for row in conn.execute(_OWN_AMONG, asked))
    insert_events(conn, [Event(id_, CANCELLED, "", waiting[id_], 0) for id_ in own])
    return own


def _remembered(id_: str, project: str) -> str:
    return str(uuid5(_REMEMBERED, f"{project} {UUID(id_)}"))


_NOTE_ABORTED = text(f"""
INSERT INTO events (
  notification_id,
  kind,
  registration,
  at,
  step
)
SELECT
  n.id,
  '{CANCELLED}',
  '',
  aborted.at,
  0
FROM notifications n
CROSS JOIN LATERAL (SELECT {aborted_at("n.batch_id")} AS at) aborted
WHERE n.id = ANY(CAST(:ids AS uuid[])) AND aborted.at IS NOT NULL
ORDER BY n.id
ON CONFLICT DO NOTHING
""")


def note_aborted(conn: Connection, ids: Sequence[str]) -> None:
    """Remember those as cancelled whose blast was aborted, before the turn of their page comes."""
    conn.execute(_NOTE_ABORTED, {"ids": list(ids)})


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
