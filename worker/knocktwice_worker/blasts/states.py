"""The rows of blasts: the only place that changes a blast's state. Its pages are those of :mod:`.pages`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.ids import blast_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from knocktwice_shared.messages import Blast


class BlastState(StrEnum):
    """The state of a blast."""

    #: People are taken from the segment, or pages are handed out.
    RUNNING = "running"
    #: No page is handed out until the blast is resumed.
    PAUSED = "paused"
    #: Everybody has their notification.
    FINISHED = "finished"
    #: No further people are notified, and notifications that were not sent yet are cancelled.
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class LockedBlast:
    """A blast whose row this transaction holds.

    Attributes:
        filter: who belongs, as a segment's filter.
        cursor: the last user that was taken from the segment; ``None`` before the first.
        own_params: only people with values of their own are notified.
        throttle_per_min: most people in any minute; ``None``: no throttle.
        next_at: when the throttle lets the next page go; ``None`` before the first.
        expanded_at: when the last people were taken from the segment; ``None``: there may be more.
        now: the database's clock.
    """

    id: str
    filter: Mapping[str, Any]
    cursor: str | None
    own_params: bool
    throttle_per_min: int | None
    next_at: datetime | None
    expanded_at: datetime | None
    now: datetime


# A key starts once: a repeat meets the row of the first.
_START = text("""
INSERT INTO blasts (
  id,
  key,
  project,
  segment,
  filter,
  message,
  own_params,
  throttle_per_min,
  schedule,
  state,
  wake_at
) VALUES (
  :id,
  :key,
  :project,
  :segment,
  CAST(:filter AS jsonb),
  CAST(:message AS jsonb),
  :own_params,
  :per_min,
  :schedule,
  'running',
  knocktwice_now()
)
ON CONFLICT DO NOTHING
""")


def start(
    conn: Connection,
    blast: Blast,
    filter: Mapping[str, Any],  # noqa: A002
    schedule: str | None = None,
    *,
    own_params: bool = False,
) -> bool:
    """Write a blast that begins at once.

    Args:
        filter: who belongs, from now on whatever becomes of the segment.
        schedule: the name of the recurring blast that it is one of.
        own_params: only people with values of their own are notified.

    Returns:
        Whether it is new; a key starts once.
    """
    return bool(
        conn.execute(
            _START,
            {
                "id": blast_id(blast.key, blast.project),
                "key": blast.key,
                "project": blast.project,
                "segment": blast.segment,
                "filter": json.dumps(filter),
                "message": json.dumps({**blast.message, "params": blast.params}),
                "own_params": own_params,
                "per_min": blast.throttle_per_min,
                "schedule": schedule,
            },
        ).rowcount
    )


# Several dispatchers ask at once; each takes the rows that no other has.
_RING = text("""
WITH due AS MATERIALIZED (
  SELECT id
  FROM blasts
  WHERE wake_at <= knocktwice_now()
  ORDER BY wake_at
  LIMIT 20
  FOR UPDATE SKIP LOCKED
)
UPDATE blasts b SET
  wake_at = knocktwice_now() + :lease
FROM due
WHERE b.id = due.id
RETURNING b.id
""")


def ring(conn: Connection, lease: timedelta) -> list[str]:
    """Claim the blasts whose time has come; if what is published for one gets lost, it rings again after ``lease``."""
    return [str(row.id) for row in conn.execute(_RING, {"lease": lease})]


_LOCK = """
SELECT
  id,
  filter,
  cursor,
  own_params,
  throttle_per_min,
  next_at,
  expanded_at,
  knocktwice_now() AS now
FROM blasts
WHERE id = :id AND state = :state
FOR UPDATE
"""
_LOCK_WAITING = text(_LOCK)
_LOCK_AT_ONCE = text(_LOCK + "SKIP LOCKED")


def lock(
    conn: Connection, id_: str, state: BlastState = BlastState.RUNNING, *, wait: bool = True
) -> LockedBlast | None:
    """Lock a blast in this state; ``None`` if it has another state or, without ``wait``, if its row is locked."""
    row = conn.execute(_LOCK_WAITING if wait else _LOCK_AT_ONCE, {"id": id_, "state": str(state)}).first()
    return None if row is None else LockedBlast(**{**row._mapping, "id": str(row.id)})


_PAUSE = text("""
UPDATE blasts SET
  state = 'paused',
  reason = :reason,
  wake_at = NULL
WHERE id = :id AND state = 'running'
RETURNING id
""")


def pause(conn: Connection, id_: str, reason: str) -> bool:
    """Hand out no more pages, and return whether it was running."""
    return conn.execute(_PAUSE, {"id": id_, "reason": reason}).first() is not None


_RESUME = text("""
UPDATE blasts SET
  state = 'running',
  reason = NULL,
  wake_at = knocktwice_now()
WHERE id = :id AND state = 'paused'
RETURNING id
""")


def resume(conn: Connection, id_: str) -> bool:
    """Go on, and return whether it was paused."""
    return conn.execute(_RESUME, {"id": id_}).first() is not None


# The lock on the blast keeps its pages from being written and handed out meanwhile. It comes first and alone: a
# statement that waited for it would not see the pages written until then.
_STATE = text("SELECT state FROM blasts WHERE id = :id FOR UPDATE")
_LARGEST = text("SELECT max(count) FROM blast_pages WHERE blast_id = :id AND users IS NOT NULL")
_THROTTLE = text("""
UPDATE blasts SET
  throttle_per_min = :per_min,
  next_at = NULL,
  wake_at = CASE WHEN state = 'running' THEN knocktwice_now() END
WHERE id = :id
""")


class TooSlow(KnocktwiceError):
    """A blast's people are handed out in groups, and the largest group is more than the throttle allows in a minute."""


def throttle(conn: Connection, id_: str, per_min: int | None) -> bool:
    """Change how many people a running or paused blast notifies in any minute, and return whether it is one.

    Args:
        per_min: most people; ``None``: no throttle.

    Raises:
        TooSlow: its people were put into larger groups before; a pause stops them all.
    """
    state = conn.execute(_STATE, {"id": id_}).scalar_one()
    if state not in (BlastState.RUNNING, BlastState.PAUSED):
        return False
    largest = conn.execute(_LARGEST, {"id": id_}).scalar_one()
    if per_min is not None and largest is not None and per_min < largest:
        raise TooSlow(
            f"its people are in groups of up to {largest}, so {largest} a minute is the slowest; pause it to stop it"
        )
    conn.execute(_THROTTLE, {"id": id_, "per_min": per_min})
    return True


# An abort that comes before its blast is remembered in the blast's place: the key is taken, and never fires.
_ABORT = text("""
INSERT INTO blasts AS b (
  id,
  key,
  project,
  filter,
  message,
  state,
  reason,
  finished_at
) VALUES (
  :id,
  :key,
  :project,
  '{"everyone": true}',
  '{}',
  'aborted',
  :reason,
  knocktwice_now()
)
ON CONFLICT (id) DO UPDATE SET
  state = 'aborted',
  reason = excluded.reason,
  wake_at = knocktwice_now(),
  finished_at = knocktwice_now()
WHERE b.state <> 'aborted'
RETURNING b.id
""")


def abort(conn: Connection, key: str, reason: str, project: str | None = None) -> bool:
    """End a blast by its key; workers cancel its notifications page by page.

    Args:
        project: the project of the key; ``None``: it has none.

    Returns:
        Whether it had not been aborted before.
    """
    wanted = {"id": blast_id(key, project), "key": key, "project": project, "reason": reason}
    return conn.execute(_ABORT, wanted).first() is not None


_FINISH = text("""
UPDATE blasts SET
  state = 'finished',
  wake_at = NULL,
  finished_at = knocktwice_now()
WHERE id = :id AND state = 'running'
""")


def finish(conn: Connection, id_: str) -> None:
    """End a blast all of whose pages were sent."""
    conn.execute(_FINISH, {"id": id_})


_LOOK_AGAIN = text("""
UPDATE blasts SET
  next_at = :next,
  wake_at = knocktwice_now() + :again
WHERE id = :id AND state = 'running'
""")


def look_again(conn: Connection, id_: str, after: timedelta, *, next_at: datetime | None) -> None:
    """Let a blast ring again after a while.

    Args:
        next_at: when the throttle lets the next page go.
    """
    conn.execute(_LOOK_AGAIN, {"id": id_, "next": next_at, "again": after})


_REST = text("UPDATE blasts SET wake_at = NULL WHERE id = :id AND state = 'aborted'")


def rest(conn: Connection, id_: str) -> None:
    """Let an aborted blast ring no more: all it has sent is cancelled."""
    conn.execute(_REST, {"id": id_})
