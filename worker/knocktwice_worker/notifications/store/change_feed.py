"""What has happened to notifications since a follower looked last, without a message from those that make it happen.

Every change that counts leaves a time in its row: accepted, finished, received, heard. A follower reads these times
from where it stopped (indexes that cost their tables next to nothing find them) and keeps its place in a row of its
own. What it does and its new place are committed together: a kill at any line neither loses a change nor counts one
twice.

A row carries the time at which its transaction *began* and is seen when it *ends*. So a follower never reads past
the beginning of the oldest transaction that is under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: A transaction is listed as under way a moment after it took its time.
_MARGIN = timedelta(seconds=1)

#: Ids and acceptance of notifications to which something happened after ``:after`` and until ``:until``, some of them
#: several times.
CHANGED = """
SELECT id, created_at FROM notifications
WHERE created_at > :after AND created_at <= :until OR finished_at > :after AND finished_at <= :until
UNION ALL
SELECT n.id, n.created_at FROM deliveries d JOIN notifications n ON n.id = d.notification_id
WHERE d.finished_at > :after AND d.finished_at <= :until
UNION ALL
SELECT n.id, n.created_at FROM deliveries d JOIN notifications n ON n.id = d.notification_id
WHERE d.heard_at > :after AND d.heard_at <= :until
UNION ALL
SELECT n.id, n.created_at FROM events e JOIN notifications n ON n.id = e.notification_id
WHERE e.received_at > :after AND e.received_at <= :until
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time in which everything that happened is committed.

    Attributes:
        after: where it begins; this moment itself was seen before.
        until: where it ends.
    """

    after: datetime
    until: datetime


# From the first notification on, if the follower does not say from when.
_JOIN = text("""
INSERT INTO followers (
  name,
  seen_until
)
VALUES (
  :name,
  coalesce(:since, (SELECT min(created_at) FROM notifications), knocktwice_now()) - interval '1 minute'
)
ON CONFLICT DO NOTHING
""")


def join(conn: Connection, name: str, since: datetime | None = None) -> None:
    """Start to follow, unless that was done before.

    Args:
        since: from when on; ``None`` from the first notification that is there.
    """
    conn.execute(_JOIN, {"name": name, "since": since})


# Only our own connections write; a backup or a person at a prompt that keeps a transaction open holds nobody up.
_WINDOW = text("""
SELECT
  f.seen_until AS after,
  least(f.seen_until + :most, knocktwice_now() - :margin - coalesce((
    SELECT max(now() - a.xact_start) FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.application_name = 'knocktwice' AND a.pid <> pg_backend_pid()
  ), '0')) AS until
FROM followers f WHERE f.name = :name FOR UPDATE SKIP LOCKED
""")


def window(conn: Connection, name: str, *, most: timedelta) -> Window | None:
    """Return what a follower has not seen yet, and lock its place until the end of the transaction.

    Args:
        most: the longest span to look at in one go.

    Returns:
        ``None`` while somebody else looks, and when there is nothing new.
    """
    found = conn.execute(_WINDOW, {"name": name, "most": most, "margin": _MARGIN}).first()
    if found is None or found.until <= found.after:
        return None
    # The planner's statistics lag behind: it would read whole tables, because it cannot believe that so little is new.
    conn.execute(text("SET LOCAL enable_seqscan = off"))
    return Window(found.after, found.until)


# Never backwards.
_SEEN = text("UPDATE followers SET seen_until = greatest(seen_until, :until) WHERE name = :name")


def seen(conn: Connection, name: str, until: datetime) -> None:
    """Keep the follower's place."""
    conn.execute(_SEEN, {"name": name, "until": until})
