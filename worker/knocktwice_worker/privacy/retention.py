"""Retention: deletes old notifications with all their rows, the old data of blasts, and old parked messages.

Ids are UUIDv7, so old rows lie together at the beginning of each table's primary key. They are read from there and
deleted in small transactions. These lock nothing that a sender works on: what is open stays, however old. Several
workers that delete at once share the rows between them.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Engine, text

from knocktwice_worker.blasts import forgetting
from knocktwice_worker.notifications.store import removal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

log = structlog.get_logger(__name__)

#: Notifications deleted in one transaction.
CHUNK = 1_000
#: The longest time of one run; a task must end long before the broker believes that its worker died.
RUN = timedelta(seconds=60)

_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


class Removed(NamedTuple):
    """The rows that one run deleted. ``more``: its time was over before the rest."""

    notifications: int = 0
    batches: int = 0
    dead_letters: int = 0
    blast_pages: int = 0
    more: bool = False


_NOW = text("SELECT knocktwice_now()")


def purge(engine: Engine, keep: timedelta, *, run: timedelta = RUN) -> Removed:
    """Delete what ended longer ago than ``keep``.

    Args:
        keep: zero: for ever.
        run: stop after this long.
    """
    if not keep:
        return Removed()
    with engine.begin() as conn:
        until = conn.execute(_NOW).scalar_one() - keep
    deadline = time.monotonic() + run.total_seconds()
    done = Removed()
    for what, removed in _steps(engine, until):
        done = done._replace(**{what: getattr(done, what) + removed})
        if time.monotonic() >= deadline:
            done = done._replace(more=True)
            break
    if any(done):
        log.info("old rows deleted", **done._asdict())
    return done


_LETTERS = text("""
WITH old AS MATERIALIZED (
  SELECT id
  FROM dead_letters
  WHERE at < :until
  ORDER BY id
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
DELETE FROM dead_letters d USING old
WHERE d.id = old.id
""")


def _steps(engine: Engine, until: datetime) -> Iterator[tuple[str, int]]:
    """Delete chunk by chunk, and say after each what and how many."""
    for first, last in _ranges(until):
        yield from (("notifications", removed) for removed in _notifications(engine, first, last, until))
    for first, last in _ranges(until):
        yield from (("batches", removed) for removed in _batches(engine, first, last, until))
    removed = CHUNK
    while removed == CHUNK:
        with engine.begin() as conn:
            removed = conn.execute(_LETTERS, {"until": until, "limit": CHUNK}).rowcount
        yield "dead_letters", removed
    removed = CHUNK
    while removed == CHUNK:
        with engine.begin() as conn:
            removed = forgetting.purge(conn, until, CHUNK)
        yield "blast_pages", removed


# Notifications under way stay, however old. Rows that another worker is deleting are left to that worker.
_OLD = text("""
SELECT id
FROM notifications
WHERE id > CAST(:after AS uuid)
  AND id < CAST(:boundary AS uuid)
  AND state <> 'active'
  AND finished_at < :until
ORDER BY id
LIMIT :limit
FOR UPDATE SKIP LOCKED
""")

# Before their notifications: the database would look for them one notification at a time.
_LINKS = text("DELETE FROM links WHERE notification_id = ANY(CAST(:ids AS uuid[]))")


def _notifications(engine: Engine, first: UUID, last: UUID, until: datetime) -> Iterator[int]:
    page = {"after": str(first), "boundary": str(last), "until": until, "limit": CHUNK}
    while True:
        with engine.begin() as conn:
            ids = [str(row.id) for row in conn.execute(_OLD, page)]
            if not ids:
                return
            conn.execute(_LINKS, {"ids": ids})
            removal.delete(conn, ids)
        page["after"] = ids[-1]
        yield len(ids)


# A batch whose every recipient was a repeat has had no notification from the start.
_BATCHES = text("""
WITH old AS (
  SELECT b.id
  FROM batches b
  WHERE b.id > CAST(:after AS uuid)
    AND b.id < CAST(:boundary AS uuid)
    AND b.created_at < :until
  ORDER BY b.id
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM batches b USING old
  WHERE b.id = old.id AND NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = b.id)
  RETURNING b.id
)
SELECT
  (SELECT max(CAST(id AS text)) FROM old) AS last,
  (SELECT count(*) FROM gone) AS removed
""")


def _batches(engine: Engine, first: UUID, last: UUID, until: datetime) -> Iterator[int]:
    page = {"after": str(first), "boundary": str(last), "until": until, "limit": CHUNK}
    while True:
        with engine.begin() as conn:
            row = conn.execute(_BATCHES, page).one()
        if row.last is None:
            return
        page["after"] = row.last
        yield row.removed


def _ranges(until: datetime) -> tuple[tuple[UUID, UUID], ...]:
    """Return the ranges of old ids: UUIDv7 from before then, and ids of other kinds, most of which come after them."""
    old = UUID(int=int(until.timestamp() * 1000) << 80)
    beyond = UUID(int=int((until + timedelta(days=36_525)).timestamp() * 1000) << 80)
    return (_FIRST, old), (beyond, _LAST)
