"""The rows of blasts: the only place that changes a blast's state or its pages.

A blast takes the people of its segment in the order of their ids and cuts them into *pages*, each of which becomes one
batch. What makes it exact under ``kill -9`` is two transactions: a page is written together with the cursor behind it, so
everybody is in exactly one page; and it is emptied together with the rows of its notifications, so it is sent exactly once.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from knocktwice_shared.ids import blast_id, uuid7
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from knocktwice_shared.messages import Blast

#: Pages of one blast that workers may have at once. A few workers are busy with as many, and what an application sends
#: meanwhile does not stand behind a million people.
IN_FLIGHT = 16
#: Ids that a page takes: its own and those of its notifications.
_IDS = 1024
#: Pages a minute that a throttle is spread over, at least.
_SHARES = 12
#: How long a throttle that was not used is made up for.
_MADE_UP = timedelta(seconds=5)
#: When to look at a blast again whose pages are with the workers.
_AGAIN = timedelta(seconds=1)

_START = text("""
INSERT INTO blasts (id, key, segment, filter, message, throttle_per_min, schedule, state, wake_at)
VALUES (:id, :key, :segment, CAST(:filter AS jsonb), CAST(:message AS jsonb), :per_min, :schedule, 'running', knocktwice_now())
ON CONFLICT DO NOTHING
""")

_RING = text("""
UPDATE blasts b SET wake_at = knocktwice_now() + :lease
FROM (
  SELECT id FROM blasts WHERE wake_at <= knocktwice_now() ORDER BY wake_at LIMIT 20 FOR UPDATE SKIP LOCKED
) due
WHERE b.id = due.id
RETURNING b.id
""")

_LOCK = text("SELECT *, knocktwice_now() AS now FROM blasts WHERE id = :id AND state = :state FOR UPDATE")
_LOCK_AT_ONCE = text(
    "SELECT *, knocktwice_now() AS now FROM blasts WHERE id = :id AND state = :state FOR UPDATE SKIP LOCKED"
)

_WRITE_PAGE = text("""
INSERT INTO blast_pages (id, last_id, blast_id, count, users) VALUES (:id, :last, :blast, :count, :users)
""")

_ADVANCE = text("""
UPDATE blasts SET cursor = CASE WHEN NOT :last THEN coalesce(:cursor, cursor) END, total = total + :taken, wake_at = knocktwice_now() + :lease,
  started_at = coalesce(started_at, knocktwice_now()), expanded_at = CASE WHEN :last THEN knocktwice_now() END
WHERE id = :id
""")

_IN_FLIGHT = text("""
SELECT p.busy, p.waiting, r.lately FROM (
  SELECT count(*) FILTER (WHERE wake_at > knocktwice_now()) AS busy, count(*) AS waiting
  FROM blast_pages WHERE blast_id = :id AND users IS NOT NULL
) p CROSS JOIN (
  SELECT coalesce(sum(count), 0) AS lately FROM blast_pages
  WHERE blast_id = :id AND released_at > knocktwice_now() - interval '1 minute'
) r
""")

_FINISH = text("""
UPDATE blasts SET state = 'finished', wake_at = NULL, finished_at = knocktwice_now() WHERE id = :id AND state = 'running'
""")

_LOOK_AGAIN = text("""
UPDATE blasts SET next_at = :next, wake_at = knocktwice_now() + :again WHERE id = :id AND state = 'running'
""")

_RELEASE = text("""
UPDATE blast_pages p SET wake_at = knocktwice_now() + :lease, released_at = knocktwice_now()
FROM (
  SELECT id FROM blast_pages
  WHERE blast_id = :id AND users IS NOT NULL AND coalesce(wake_at <= knocktwice_now(), true)
  ORDER BY id LIMIT :room FOR UPDATE SKIP LOCKED
) next
WHERE p.id = next.id
RETURNING p.id
""")

_PAGE = text("""
SELECT p.id, p.users, b.id AS blast_id, b.message FROM blast_pages p JOIN blasts b ON b.id = p.blast_id
WHERE p.id = :id AND p.users IS NOT NULL
""")

# The page is locked until its notifications are committed. An abort that comes meanwhile waits for that, and finds them.
_EMPTY = text("""
UPDATE blast_pages p SET users = NULL, wake_at = NULL, sent_at = knocktwice_now()
FROM blasts b
WHERE p.id = :id AND p.users IS NOT NULL AND b.id = p.blast_id AND b.state = 'running'
RETURNING p.id
""")

_DISCARD = text("UPDATE blast_pages SET users = NULL, wake_at = NULL WHERE blast_id = :id AND users IS NOT NULL")

_TO_CANCEL = text("""
SELECT id, last_id FROM blast_pages
WHERE blast_id = :id AND sent_at IS NOT NULL AND cancelled_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE
""")

_ACTIVE = text("""
SELECT id FROM notifications WHERE id > :first AND id <= :last AND batch_id = :first AND state = 'active' ORDER BY id
""")

# One that comes before its blast is remembered in its place: the key is taken, and never fires.
_ABORT = text("""
INSERT INTO blasts AS b (id, key, filter, message, state, reason, finished_at)
VALUES (:id, :key, '{"everyone": true}', '{}', 'aborted', :reason, knocktwice_now())
ON CONFLICT (id) DO UPDATE SET state = 'aborted', reason = excluded.reason, wake_at = knocktwice_now(),
  finished_at = knocktwice_now()
WHERE b.state <> 'aborted'
RETURNING b.id
""")

_PAUSE = text("""
UPDATE blasts SET state = 'paused', reason = :reason, wake_at = NULL WHERE id = :id AND state = 'running' RETURNING id
""")

_RESUME = text("""
UPDATE blasts SET state = 'running', reason = NULL, wake_at = knocktwice_now() WHERE id = :id AND state = 'paused'
RETURNING id
""")

_FORGET = text("""
UPDATE blast_pages SET users = array_replace(users, :user, NULL)
WHERE users IS NOT NULL AND users @> ARRAY[CAST(:user AS text)] AND id < :boundary
""")

_MOVE_CURSOR = text("""
UPDATE blasts SET cursor = CASE WHEN expanded_at IS NULL THEN (SELECT max(id) FROM users WHERE id < :user) END
WHERE cursor = :user AND NOT EXISTS (SELECT FROM users WHERE id = :user)
""")

# A page stays while any of its notifications does: aborting the blast finds them by it.
_PURGE_PAGES = text("""
DELETE FROM blast_pages WHERE id IN (
  SELECT p.id FROM blasts b JOIN blast_pages p ON p.blast_id = b.id
  WHERE b.state IN ('finished', 'aborted') AND b.wake_at IS NULL AND b.finished_at < :until AND p.users IS NULL
    AND NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = p.id)
  ORDER BY p.id LIMIT :limit FOR UPDATE OF b, p SKIP LOCKED)
RETURNING blast_id, CASE WHEN sent_at IS NOT NULL THEN count ELSE 0 END AS sent
""")

# The key stays, so that it never fires twice; of the people, how many.
_PURGE = text("""
UPDATE blasts b SET filter = '{"everyone": true}', message = '{}', cursor = NULL, total = b.purged
WHERE b.state IN ('finished', 'aborted') AND b.wake_at IS NULL AND b.finished_at < :until AND b.message <> '{}'
  AND NOT EXISTS (SELECT FROM blast_pages p WHERE p.blast_id = b.id)
""")

_FIND = """
SELECT b.*, p.* FROM blasts b CROSS JOIN LATERAL (
  SELECT b.purged + coalesce(sum(count) FILTER (WHERE sent_at IS NOT NULL), 0) AS sent,
         coalesce(sum(count) FILTER (WHERE cancelled_at IS NOT NULL), 0) AS cancelled
  FROM blast_pages WHERE blast_id = b.id AND sent_at IS NOT NULL
) p
"""

_OUTCOMES = text("""
SELECT n.state, count(*) AS n FROM blast_pages p
JOIN notifications n ON n.id > p.id AND n.id <= p.last_id AND n.batch_id = p.id
WHERE p.blast_id = :id AND p.sent_at IS NOT NULL GROUP BY n.state
""")


@dataclass(frozen=True, slots=True)
class Page:
    """People of a blast that become one batch.

    Attributes:
        id: the batch's.
        blast_id: whose page it is.
        people: notification id → user.
        message: the blast's, beside them.
    """

    id: str
    blast_id: str
    people: Mapping[str, str]
    message: Mapping[str, Any]


def start(conn: Connection, blast: Blast, filter: Mapping[str, Any], schedule: str | None = None) -> bool:  # noqa: A002
    """Write a blast that begins at once.

    Args:
        filter: who belongs, from now on whatever becomes of the segment.
        schedule: the name of the recurring blast that it is one of.

    Returns:
        Whether it is new; a key starts once.
    """
    return bool(
        conn.execute(
            _START,
            {
                "id": blast_id(blast.key),
                "key": blast.key,
                "segment": blast.segment,
                "filter": json.dumps(filter),
                "message": json.dumps({**blast.message, "params": blast.params}),
                "per_min": blast.throttle_per_min,
                "schedule": schedule,
            },
        ).rowcount
    )


def ring(conn: Connection, lease: timedelta) -> list[str]:
    """Claim the blasts whose time has come; if what is published for one gets lost, it rings again after ``lease``."""
    return [str(row.id) for row in conn.execute(_RING, {"lease": lease})]


def lock(conn: Connection, id_: str, state: str = "running", *, wait: bool = True) -> Row[Any] | None:
    """Lock a blast that is in this state; ``None`` if it is not or, without ``wait``, if somebody else has it."""
    return conn.execute(_LOCK if wait else _LOCK_AT_ONCE, {"id": id_, "state": state}).first()


def write_pages(conn: Connection, blast: Row[Any], users: Sequence[str], *, last: bool, lease: timedelta) -> None:
    """Write the next people of a locked blast as pages, together with the cursor behind them.

    Args:
        last: nobody comes after them.
    """
    size = page_size(blast.throttle_per_min)
    for first in range(0, len(users), size):
        some = list(users[first : first + size])
        # All its notifications' ids fit between this one and the next that ends in as many zeros.
        id_ = UUID(int=uuid7().int & ~(_IDS - 1))
        end = UUID(int=id_.int + _IDS - 1)
        conn.execute(_WRITE_PAGE, {"id": id_, "last": end, "blast": blast.id, "count": len(some), "users": some})
    cursor = users[-1] if users else None
    conn.execute(_ADVANCE, {"id": blast.id, "cursor": cursor, "taken": len(users), "last": last, "lease": lease})


def page_size(per_min: int | None) -> int:
    """Return how many people a page has. With a throttle they are small, so that it is kept in steps of seconds."""
    return BATCH_LIMIT if per_min is None else max(1, min(BATCH_LIMIT, per_min // _SHARES))


def release(conn: Connection, blast: Row[Any], lease: timedelta, *, most: int = IN_FLIGHT) -> list[str]:
    """Hand the next pages of a locked blast to workers, as many as its throttle and ``most`` allow.

    It also says when to look again, and finishes a blast that has nothing left. While people are still taken from the
    segment nothing is handed out: that is soon done, and sending would only hold it up.

    Args:
        most: pages that workers may have at once.

    Returns:
        The pages' ids. Whoever gets one has it for ``lease``.
    """
    if not blast.expanded_at:
        return []
    counted = conn.execute(_IN_FLIGHT, {"id": blast.id}).one()
    if not counted.waiting:
        conn.execute(_FINISH, {"id": blast.id})
        return []
    room = max(0, most - counted.busy)
    next_at = blast.next_at
    if blast.throttle_per_min is not None:
        turns, next_at = _throttled(blast, counted.lately)
        room = min(room, turns)
        next_at += room * _interval(blast.throttle_per_min)
    released = conn.execute(_RELEASE, {"id": blast.id, "room": room, "lease": lease}).all() if room else []
    conn.execute(_LOOK_AGAIN, {"id": blast.id, "next": next_at, "again": _AGAIN})
    return [str(row.id) for row in released]


def _throttled(blast: Row[Any], lately: int) -> tuple[int, datetime]:
    """Return how many pages the throttle lets go now, and the time from which the next ones count.

    Not more than it says in any minute, and these spread over it; some seconds that were missed are made up for.
    """
    size, step = page_size(blast.throttle_per_min), _interval(blast.throttle_per_min)
    since = max(blast.next_at or blast.now, blast.now - _MADE_UP)
    turns = 1 + (blast.now - since) // step if since <= blast.now else 0
    return max(0, min(turns, (blast.throttle_per_min - lately) // size)), since


def _interval(per_min: int) -> timedelta:
    """Return the time from one page to the next that a throttle asks for."""
    return timedelta(minutes=1) / (per_min // page_size(per_min))


def page(conn: Connection, id_: str) -> Page | None:
    """Return a page that waits to be sent, without claiming it."""
    row = conn.execute(_PAGE, {"id": id_}).first()
    if row is None:
        return None
    first = UUID(str(row.id)).int
    people = {str(UUID(int=first + place)): user for place, user in enumerate(row.users, 1) if user is not None}
    return Page(str(row.id), str(row.blast_id), people, row.message)


def take(conn: Connection, id_: str) -> bool:
    """Empty a page, in the transaction that writes its notifications, and return whether that is still wanted."""
    return conn.execute(_EMPTY, {"id": id_}).first() is not None


def pause(conn: Connection, id_: str, reason: str) -> bool:
    """Hand out no more pages, and return whether it was running."""
    return conn.execute(_PAUSE, {"id": id_, "reason": reason}).first() is not None


def resume(conn: Connection, id_: str) -> bool:
    """Go on, and return whether it was paused."""
    return conn.execute(_RESUME, {"id": id_}).first() is not None


def abort(conn: Connection, key: str, reason: str) -> bool:
    """End a blast; its notifications are cancelled step by step. Returns whether it had not been aborted before."""
    return conn.execute(_ABORT, {"id": blast_id(key), "key": key, "reason": reason}).first() is not None


def discard(conn: Connection, id_: str) -> None:
    """Throw the pages of an aborted blast away that were not sent."""
    conn.execute(_DISCARD, {"id": id_})


def next_to_cancel(conn: Connection, id_: str) -> tuple[str, list[str]] | None:
    """Return the next page of an aborted blast that was sent, and its active notifications; ``None``: none is left."""
    row = conn.execute(_TO_CANCEL, {"id": id_}).first()
    if row is None:
        conn.execute(text("UPDATE blasts SET wake_at = NULL WHERE id = :id AND state = 'aborted'"), {"id": id_})
        return None
    return str(row.id), [str(n.id) for n in conn.execute(_ACTIVE, {"first": row.id, "last": row.last_id})]


def cancelled(conn: Connection, page: str) -> None:
    """Note that a page's notifications are cancelled."""
    conn.execute(text("UPDATE blast_pages SET cancelled_at = knocktwice_now() WHERE id = :id"), {"id": page})


def find(conn: Connection, key_or_id: str) -> Row[Any] | None:
    """Return a blast with how many people it has ``sent`` to and ``cancelled``, by its key or its id."""
    query = text(_FIND + "WHERE b.key = :value OR CAST(b.id AS text) = :value")
    return conn.execute(query, {"value": key_or_id.replace("\0", "")}).first()


def latest(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """Return the latest blasts, as :func:`find` does."""
    return conn.execute(text(_FIND + "ORDER BY b.created_at DESC, b.id LIMIT :limit"), {"limit": limit}).all()


def told(row: Row[Any]) -> dict[str, Any]:
    """Return a blast, as found, as plain data."""
    names = ("id", "key", "segment", "schedule", "state", "reason", "throttle_per_min", "total", "sent", "cancelled")
    times = ("created_at", "started_at", "expanded_at", "finished_at")
    return {name: getattr(row, name) for name in (*names, *times)} | {
        "template": row.message.get("content", {}).get("template")
    }


def outcomes(conn: Connection, id_: UUID) -> dict[str, int]:
    """Return how many notifications of a blast are in which state. Reads all of them."""
    return {row.state: row.n for row in conn.execute(_OUTCOMES, {"id": id_})}


def forget_user(conn: Connection, user: str, boundary: UUID) -> None:
    """Take a user out of all pages that were made before and not sent yet.

    The places of the others stay, because their notifications' ids follow from these.

    Args:
        boundary: the first id of the time from which on pages stay as they are.
    """
    conn.execute(_FORGET, {"user": user, "boundary": boundary})


def purge(conn: Connection, until: datetime, limit: int) -> int:
    """Delete pages of blasts that ended before ``until`` and whose notifications were deleted, and what those blasts said.

    What is left of a blast is its key, its times and how many people it notified.

    Returns:
        How many pages were deleted; call again while that is ``limit``.
    """
    pages = conn.execute(_PURGE_PAGES, {"until": until, "limit": limit}).all()
    sent: Counter[str] = Counter()
    for page in pages:
        sent[str(page.blast_id)] += page.sent
    if sent:
        add = text("""
        UPDATE blasts b SET purged = b.purged + r.sent
        FROM unnest(CAST(:ids AS uuid[]), CAST(:sent AS int[])) AS r(id, sent) WHERE b.id = r.id
        """)
        conn.execute(add, {"ids": list(sent), "sent": list(sent.values())})
    conn.execute(_PURGE, {"until": until})
    return len(pages)


def forget_cursor(conn: Connection, user: str) -> None:
    """Let blasts that stopped at a user who is no longer there go on behind whoever comes before."""
    conn.execute(_MOVE_CURSOR, {"user": user})
