"""A person's notifications: found, cancelled, and emptied of everything by which one could tell whom they were for.

The rows are changed by ``notifications/store`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared.names import BATCH_LIMIT, key_name, scoped
from knocktwice_worker.database import by_time
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import removal
from knocktwice_worker.webhooks import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis
    from sqlalchemy import Engine

_FIRST = str(UUID(int=0))


@dataclass(frozen=True, slots=True)
class Person:
    """The person whose notifications are meant.

    Attributes:
        user: the application's id of the person.
        inline: numbers that only this person has; notifications that name such a number and no user are theirs, too.
        until: notifications made later stay.
    """

    user: str
    inline: tuple[str, ...]
    until: datetime


@dataclass(frozen=True, slots=True)
class _Found:
    """A notification of the person.

    Attributes:
        key: the idempotency key, which may quote the person's id.
        project: the project of the key.
        open: whether it is still under way.
    """

    id: str
    key: str | None
    project: str | None
    batch_id: str
    open: bool


def first_id_after(at: datetime) -> UUID:
    """Return the first UUIDv7 of the next millisecond."""
    return UUID(int=(int(at.timestamp() * 1000) + 1) << 80)


# A UUIDv7 says when it was made, and the primary key finds it by that; of any other id the row says when.
PAGE = text(f"""
SELECT
  n.id,
  n.key,
  n.project,
  n.batch_id,
  n.state = 'active' AS open
FROM notifications n
WHERE coalesce(n.user_id, n.phone) = ANY(:people)
  AND (n.user_id = :user OR (n.user_id IS NULL AND n.phone = ANY(:inline)))
  AND CASE
    WHEN substr(CAST(n.id AS text), 15, 1) = '7' THEN n.id < CAST(:boundary AS uuid)
    ELSE n.created_at <= :until
  END
  AND n.id > CAST(:after AS uuid)
  AND {by_time.span("n.id")} >= {by_time.span("CAST(:after AS uuid)")}
ORDER BY {by_time.span("n.id")}, n.id
LIMIT :limit
""")


def _page(conn: Connection, person: Person, after: str) -> list[_Found]:
    """Return the person's next notifications after an id."""
    page = {
        "user": person.user,
        "inline": list(person.inline),
        "people": [person.user, *person.inline],
        "until": person.until,
        "boundary": str(first_id_after(person.until)),
        "after": after,
        "limit": BATCH_LIMIT,
    }
    return [_Found(str(row.id), row.key, row.project, str(row.batch_id), row.open) for row in conn.execute(PAGE, page)]


def cancel_open(engine: Engine, person: Person) -> None:
    """Cancel what is under way, as the pipeline's cancellation does: committed first, then carried out."""
    after = _FIRST
    while True:
        with engine.begin() as conn:
            found = _page(conn, person, after)
            if not found:
                return
            after = found[-1].id
            pending = [one.id for one in found if one.open]
            store.note_cancelled(conn, pending, [], datetime.now(UTC))
        with engine.begin() as conn:
            store.settle_cancelled(conn, pending)
            removal.say_erased(conn, pending)


def erase(engine: Engine, redis: Redis, person: Person) -> tuple[int, int]:
    """Cancel and empty a person's notifications.

    Returns:
        How many were emptied, and how many some worker is sending at the moment, which stay as they are.
    """
    erased = busy = 0
    after = _FIRST
    while True:
        with engine.begin() as conn:
            found = _page(conn, person, after)
            if not found:
                return erased, busy
            after = found[-1].id
            done = _cancel(conn, found)
            keys = [key_name(scoped(one.key, one.project)) for one in found if one.key and one.id in done]
            if keys:
                redis.delete(*keys)
            events.erase(conn, done)
            _blank(conn, sorted(done), sorted({one.batch_id for one in found}))
        erased, busy = erased + len(done), busy + len(found) - len(done)


# A notification is locked before what belongs to it: retention takes the locks in the same order. What a worker is
# sending just now cannot be taken out of its hands, so it is left out.
_DONE = text("""
SELECT n.id
FROM notifications n
WHERE n.id = ANY(CAST(:ids AS uuid[]))
  AND n.state <> 'active'
  AND NOT EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.wake_at IS NOT NULL)
ORDER BY n.id
FOR UPDATE
""")


def _cancel(conn: Connection, found: Sequence[_Found]) -> set[str]:
    """Cancel notifications under way; return the ids of those that no worker works on any more."""
    pending = [one.id for one in found if one.open]
    if pending:
        store.cancel(conn, pending, [], datetime.now(UTC))
        removal.say_erased(conn, pending)
    return {str(row.id) for row in conn.execute(_DONE, {"ids": [one.id for one in found]})}


# An address may hold a name or an order, and the application knows what it leads to.
_FORGET_LINKS = text("DELETE FROM links WHERE notification_id = ANY(CAST(:ids AS uuid[]))")

# A template's content names no person and stays. A content that was written for these people may name them.
BLANK_BATCHES = text("""
UPDATE batches b SET
  reference = '{}',
  plan = NULL,
  content = CASE
    WHEN b.content ? 'template' THEN b.content
    ELSE '{"push": {"title": "", "body": "", "data": {}, "link": null, "image": null}, "sms": null}'
  END
WHERE b.id = ANY(CAST(:batches AS uuid[]))
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = b.id AND n.id <> ALL(CAST(:ids AS uuid[])))
""")


def _blank(conn: Connection, ids: Sequence[str], batches: Sequence[str]) -> None:
    """Empty notifications, and the batches that had no others."""
    conn.execute(_FORGET_LINKS, {"ids": ids})
    removal.blank(conn, ids)
    conn.execute(BLANK_BATCHES, {"ids": ids, "batches": batches})
