"""The pages of blasts: people that become one batch, and the only place that writes them.

A blast takes the people of its segment in the order of their ids and cuts them into *pages*, each of which becomes one
batch. Two transactions make it exact under ``kill -9``. A page is written together with the cursor behind it, so
everybody is in exactly one page. It is emptied together with writing its notifications, so it is sent exactly once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.blasts import own_params, states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from knocktwice_shared.cells import Cell
    from knocktwice_worker.blasts.states import LockedBlast

#: Pages of one blast that workers may have at once. A few workers are busy with as many, and what an application sends
#: meanwhile does not stand behind a million people.
IN_FLIGHT = 16
#: Ids that a page takes: its own and those of its notifications.
_IDS = 1024
#: Pages a minute that a throttle is spread over, at least.
_SHARES = 12
#: The longest unused time that a throttle makes up for.
_MADE_UP = timedelta(seconds=5)
#: When to look at a blast again whose pages are with the workers.
_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Page:
    """People of a blast that become one batch.

    Attributes:
        id: the batch's.
        blast_id: whose page it is.
        key: the blast's.
        people: notification id → user.
        message: the blast's, beside them.
        own_params: each has values of their own.
    """

    id: str
    blast_id: str
    key: str
    people: Mapping[str, str]
    message: Mapping[str, Any]
    own_params: bool = False


@dataclass(frozen=True, slots=True)
class SentPage:
    """A page of an aborted blast that was sent before.

    Attributes:
        open: ids of its notifications that are under way, or whose SMS may be sent again.
    """

    id: str
    open: Sequence[str]


def page_size(per_min: int | None) -> int:
    """Return how many people a page has. With a throttle they are small, so that it is kept in steps of seconds."""
    return BATCH_LIMIT if per_min is None else max(1, min(BATCH_LIMIT, per_min // _SHARES))


_WRITE = text("""
INSERT INTO blast_pages (id, last_id, blast_id, count, users) VALUES (:id, :last, :blast, :count, :users)
""")

# The last page clears the cursor, because no person comes after it.
_ADVANCE = text("""
UPDATE blasts SET
  cursor = CASE WHEN NOT :last THEN coalesce(:cursor, cursor) END,
  total = total + :taken,
  wake_at = knocktwice_now() + :lease,
  started_at = coalesce(started_at, knocktwice_now()),
  expanded_at = CASE WHEN :last THEN knocktwice_now() END
WHERE id = :id
""")


def write(
    conn: Connection,
    blast: LockedBlast,
    users: Sequence[str],
    *,
    last: bool,
    lease: timedelta,
    cursor: str | None = None,
    cell: Cell | None = None,
) -> None:
    """Write the next people of a locked blast as pages, together with the cursor behind them.

    Args:
        cursor: the last person that was looked at, if that is not the last of ``users``.
        last: nobody comes after them.
        cell: whose number their ids carry; ``None``: there are no cells.
    """
    size = page_size(blast.throttle_per_min)
    for first in range(0, len(users), size):
        some = list(users[first : first + size])
        # All its notifications' ids fit between this one and the next that ends in as many zeros.
        made = uuid7() if cell is None else cell.marked(uuid7())
        id_ = UUID(int=made.int & ~(_IDS - 1))
        end = UUID(int=id_.int + _IDS - 1)
        conn.execute(_WRITE, {"id": id_, "last": end, "blast": blast.id, "count": len(some), "users": some})
    cursor = cursor or (users[-1] if users else None)
    conn.execute(_ADVANCE, {"id": blast.id, "cursor": cursor, "taken": len(users), "last": last, "lease": lease})


# busy: with workers now; waiting: not sent yet, these included; lately: people of the pages handed out in the last
# minute.
_COUNT = text("""
SELECT
  p.busy,
  p.waiting,
  r.lately
FROM (
  SELECT
    count(*) FILTER (WHERE wake_at > knocktwice_now()) AS busy,
    count(*) AS waiting
  FROM blast_pages
  WHERE blast_id = :id AND users IS NOT NULL
) p
CROSS JOIN (
  SELECT coalesce(sum(count), 0) AS lately
  FROM blast_pages
  WHERE blast_id = :id AND released_at > knocktwice_now() - interval '1 minute'
) r
""")

# A page whose lease ran out had a worker that died, and is handed out again.
# Pages keep the size that they were written with, so people are counted: after a change of the throttle a page may be
# larger than a share of it. The first page goes as soon as the minute has room for it.
_RELEASE = text("""
WITH waiting AS MATERIALIZED (
  SELECT
    id,
    count
  FROM blast_pages
  WHERE blast_id = :id AND users IS NOT NULL AND coalesce(wake_at <= knocktwice_now(), true)
  ORDER BY id
  LIMIT :room
  FOR UPDATE SKIP LOCKED
),
next AS (
  SELECT
    id,
    count,
    sum(count) OVER (ORDER BY id) AS upto
  FROM waiting
)
UPDATE blast_pages p SET
  wake_at = knocktwice_now() + :lease,
  released_at = knocktwice_now()
FROM next
WHERE p.id = next.id AND (
  CAST(:share AS integer) IS NULL
  OR next.upto <= :share
  OR (next.upto = next.count AND next.count <= :minute))
RETURNING
  p.id,
  p.count AS people
""")


def release(conn: Connection, blast: LockedBlast, lease: timedelta, *, most: int = IN_FLIGHT) -> list[str]:
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
    counted = conn.execute(_COUNT, {"id": blast.id}).one()
    if not counted.waiting:
        states.finish(conn, blast.id)
        if blast.own_params:
            own_params.drop(conn, blast.id)
        return []
    room = max(0, most - counted.busy)
    share = minute = None
    if (per_min := blast.throttle_per_min) is not None:
        minute = max(0, per_min - counted.lately)
        allowed, since = _throttled(blast, per_min)
        share = min(allowed * page_size(per_min), minute)
        room = room if allowed else 0
    wanted = {"id": blast.id, "room": room, "lease": lease, "share": share, "minute": minute}
    released = conn.execute(_RELEASE, wanted).all() if room else []
    next_at = blast.next_at
    if per_min is not None:
        # As many shares of the minute as the people are.
        shares = math.ceil(sum(row.people for row in released) / page_size(per_min))
        next_at = since + shares * _interval(per_min)
    states.look_again(conn, blast.id, _AGAIN, next_at=next_at)
    return [str(row.id) for row in released]


def _throttled(blast: LockedBlast, per_min: int) -> tuple[int, datetime]:
    """Return how many shares of its minute the throttle lets go now, and the time from which the next ones count.

    They are spread over the minute; some seconds that were missed are made up for.
    """
    since = max(blast.next_at or blast.now, blast.now - _MADE_UP)
    return 1 + (blast.now - since) // _interval(per_min) if since <= blast.now else 0, since


def _interval(per_min: int) -> timedelta:
    """Return the time from one share of a throttle's minute to the next."""
    return timedelta(minutes=1) / (per_min // page_size(per_min))


_FIND = text("""
SELECT
  p.id,
  p.users,
  b.id AS blast_id,
  b.key,
  b.own_params,
  b.message
FROM blast_pages p JOIN blasts b ON b.id = p.blast_id
WHERE p.id = :id AND p.users IS NOT NULL
""")


def find(conn: Connection, id_: str) -> Page | None:
    """Return a page that waits to be sent, without claiming it."""
    row = conn.execute(_FIND, {"id": id_}).first()
    if row is None:
        return None
    first = UUID(str(row.id)).int
    people = {str(UUID(int=first + place)): user for place, user in enumerate(row.users, 1) if user is not None}
    return Page(str(row.id), str(row.blast_id), row.key, people, row.message, row.own_params)


_PUT_BACK = text("UPDATE blast_pages SET wake_at = knocktwice_now() + :after WHERE id = :id AND users IS NOT NULL")


def put_back(conn: Connection, id_: str, after: timedelta) -> None:
    """Let a page that was not sent be handed out again after a while."""
    conn.execute(_PUT_BACK, {"id": id_, "after": after})


# The row of the page stays locked until its notifications are committed. An abort that comes meanwhile waits for that,
# and finds them.
_TAKE = text("""
UPDATE blast_pages p SET
  users = NULL,
  wake_at = NULL,
  sent_at = knocktwice_now()
FROM blasts b
WHERE p.id = :id AND p.users IS NOT NULL AND b.id = p.blast_id AND b.state = 'running'
RETURNING p.id
""")


def take(conn: Connection, id_: str) -> bool:
    """Empty a page, in the transaction that writes its notifications, and return whether that is still wanted."""
    return conn.execute(_TAKE, {"id": id_}).first() is not None


_DISCARD = text("""
UPDATE blast_pages SET
  users = NULL,
  wake_at = NULL
WHERE blast_id = :id AND users IS NOT NULL
""")


def discard(conn: Connection, blast: str) -> None:
    """Throw the pages of an aborted blast away that were not sent."""
    conn.execute(_DISCARD, {"id": blast})
    own_params.drop(conn, blast)


_TO_CANCEL = text("""
SELECT
  id,
  last_id
FROM blast_pages
WHERE blast_id = :id AND sent_at IS NOT NULL AND cancelled_at IS NULL
ORDER BY id
LIMIT 1
FOR UPDATE
""")

# By the primary key: the ids of a page's notifications lie between its own and its last. An SMS is sent again if its provider
# says later that it went to nobody, or if an operator wants it because its outcome is unknown.
_OPEN = text("""
SELECT n.id
FROM notifications n
WHERE n.id > :first AND n.id <= :last AND n.batch_id = :first AND (n.state = 'active' OR EXISTS (
  SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.step > 0 AND d.state IN ('sent', 'unknown')))
ORDER BY n.id
""")


def next_to_cancel(conn: Connection, blast: str) -> SentPage | None:
    """Return the next page of an aborted blast that was sent and is not cancelled; ``None``: none is left."""
    row = conn.execute(_TO_CANCEL, {"id": blast}).first()
    if row is None:
        states.rest(conn, blast)
        return None
    found = conn.execute(_OPEN, {"first": row.id, "last": row.last_id})
    return SentPage(str(row.id), [str(n.id) for n in found])


_CANCELLED = text("UPDATE blast_pages SET cancelled_at = knocktwice_now() WHERE id = :id")


def cancelled(conn: Connection, page: str) -> None:
    """Note that a page's notifications are cancelled."""
    conn.execute(_CANCELLED, {"id": page})
