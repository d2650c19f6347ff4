"""The change feed: a follower reads all notifications that have changed since its last look, without any queue.

Every change that counts leaves a time in its row: accepted, finished, received, heard. A follower reads these times
from its last position on; the indexes for this are nearly free for their tables. It keeps its position in a row of its
own and commits it together with its work, so a crash neither loses a change nor counts one twice.

The time in a row is the *beginning* of its transaction, but the row becomes visible at the *end* of the transaction. So
a follower never reads past the beginning of the oldest transaction that is still open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.database import planner

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: A transaction appears in ``pg_stat_activity`` a moment after its beginning; this margin covers the moment.
_MARGIN = timedelta(seconds=1)

#: Ids and acceptance of the notifications that changed after ``:after`` and until ``:until``, each once. Nearly all whose
#: steps or receipts are new are new themselves, or have just ended; only the others are looked up by their keys, and LIMIT
#: keeps the planner, which expects a single one, from reading all notifications for them.
CHANGED = """
WITH changed AS MATERIALIZED (
  SELECT id, created_at FROM notifications
  WHERE created_at > :after AND created_at <= :until OR finished_at > :after AND finished_at <= :until
)
SELECT id, created_at FROM changed
UNION ALL
SELECT n.id, n.created_at
FROM (
  (
    SELECT notification_id FROM deliveries WHERE finished_at > :after AND finished_at <= :until
    UNION
    SELECT notification_id FROM deliveries WHERE heard_at > :after AND heard_at <= :until
    UNION
    SELECT notification_id FROM events WHERE received_at > :after AND received_at <= :until
  )
  EXCEPT
  SELECT id FROM changed
) other
CROSS JOIN LATERAL (SELECT id, created_at FROM notifications WHERE id = other.notification_id LIMIT 1) n
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time whose changes are all committed.

    Attributes:
        after: its beginning; the follower has seen changes of this very moment.
        until: its end.
    """

    after: datetime
    until: datetime


# Without ``:since`` the follower starts with the first notification. Finding that one reads the whole table, and
# ON CONFLICT alone would read it at each call: so ask first whether the follower is registered.
_JOIN = text("""
INSERT INTO followers (
  name,
  seen_until
)
SELECT
  :name,
  coalesce(:since, (SELECT min(created_at) FROM notifications), knocktwice_now()) - interval '1 minute'
WHERE NOT EXISTS (SELECT FROM followers WHERE name = :name)
ON CONFLICT DO NOTHING
""")


def join(conn: Connection, name: str, since: datetime | None = None) -> None:
    """Register a follower, unless it is registered already.

    Args:
        since: the time from which to follow; ``None``: from the first notification on.
    """
    conn.execute(_JOIN, {"name": name, "since": since})


# Only our own connections count, because only they write. So a backup or a person's open transaction delays no
# follower.
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
    """Return the span that a follower has not seen yet, and lock its position until the end of the transaction.

    Args:
        most: the longest span to return.

    Returns:
        The span; ``None`` if another process has locked the position, or if there is nothing new.
    """
    found = conn.execute(_WINDOW, {"name": name, "most": most, "margin": _MARGIN}).first()
    if found is None or found.until <= found.after:
        return None
    # The planner's statistics lag behind, so it expects many new rows and would scan whole tables.
    planner.by_index(conn)
    return Window(found.after, found.until)


# The position never moves backwards.
_SEEN = text("UPDATE followers SET seen_until = greatest(seen_until, :until) WHERE name = :name")


def seen(conn: Connection, name: str, until: datetime) -> None:
    """Store the follower's position."""
    conn.execute(_SEEN, {"name": name, "until": until})
