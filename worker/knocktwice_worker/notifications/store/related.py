"""Look-ups about notifications: their people, keys and blasts, their overdue steps, and the database's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared import subjects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

# A page of a blast has the same id as the batch that was made from it.
_RELATED = text("""
SELECT n.id,
       n.user_id,
       n.key,
       b.key AS blast,
       coalesce(n.phone, ph.number) AS phone
FROM notifications n
LEFT JOIN phones ph ON ph.user_id = n.user_id
LEFT JOIN blast_pages p ON p.id = n.batch_id
LEFT JOIN blasts b ON b.id = p.blast_id
WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")


def related(conn: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return notification id → the subjects of its person, number, idempotency key and blast, as far as it has them."""
    kinds = (("user_id", subjects.user), ("key", subjects.key), ("blast", subjects.blast), ("phone", subjects.phone))
    return {
        str(row.id): [make(value) for name, make in kinds if (value := getattr(row, name)) is not None]
        for row in conn.execute(_RELATED, {"ids": list(ids)})
    }


_BELONGING = text("""
SELECT id FROM notifications
WHERE id = ANY(CAST(:ids AS uuid[]))
  AND (CAST(:user AS text) IS NULL OR user_id = :user)
  AND (CAST(:project AS text) IS NULL OR project = :project)
""")


def belonging(
    conn: Connection, ids: Sequence[UUID], *, user: str | None = None, project: str | None = None
) -> set[UUID]:
    """Return the notifications among ``ids`` that are to a person, or of a project; ``None``: to anybody, of any."""
    found = conn.execute(_BELONGING, {"ids": list(map(str, ids)), "user": user, "project": project})
    return {UUID(str(row.id)) for row in found}


_OWNERS = text("SELECT registration, user_id FROM devices WHERE user_id = ANY(:users)")


def owners(conn: Connection, users: Sequence[str]) -> dict[str, str]:
    """Return registration → user of the devices that these people have."""
    return {row.registration: row.user_id for row in conn.execute(_OWNERS, {"users": list(users)})}


_OVERDUE = text("""
SELECT DISTINCT notification_id
FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[]))
  AND wake_at IS NOT NULL
  AND coalesce(due_at, claimed_at) + :patience <= knocktwice_now()
""")


def overdue(conn: Connection, ids: Sequence[str], patience: timedelta) -> set[str]:
    """Return the notifications among ``ids`` with an open step that was due longer than ``patience`` ago."""
    return {str(row.notification_id) for row in conn.execute(_OVERDUE, {"ids": list(ids), "patience": patience})}


def now(conn: Connection) -> datetime:
    """Return the time by the database's clock, with which all times in rows are compared."""
    moment: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    return moment
