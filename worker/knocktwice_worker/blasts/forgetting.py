"""Deletes blasts' personal data and old pages; the room ``privacy`` calls it.

No state changes here. A blast keeps its key, so that it never fires twice, and the number of people that it notified.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.blasts import own_params
from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


# The places of the others stay, because their notifications' ids follow from these.
_FORGET_USER = text("""
UPDATE blast_pages SET
  users = array_replace(users, :user, NULL)
WHERE users IS NOT NULL AND users @> ARRAY[CAST(:user AS text)] AND id < :boundary
""")


def forget_user(conn: Connection, user: str, boundary: UUID) -> None:
    """Take a user out of all pages that were made before and not sent yet.

    Args:
        boundary: the first id of the time from which on pages stay as they are.
    """
    conn.execute(_FORGET_USER, {"user": user, "boundary": boundary})
    own_params.forget_user(conn, user)


# The user's row is gone, so the cursor moves to the person before.
_MOVE_CURSOR = text("""
UPDATE blasts SET
  cursor = CASE WHEN expanded_at IS NULL THEN (SELECT max(id) FROM users WHERE id < :user) END
WHERE cursor = :user AND NOT EXISTS (SELECT FROM users WHERE id = :user)
""")


def forget_cursor(conn: Connection, user: str) -> None:
    """Let blasts that stopped at a deleted user continue after the person before."""
    conn.execute(_MOVE_CURSOR, {"user": user})


# A page stays while any of its notifications does: aborting the blast finds them by it.
_PURGE = text("""
WITH old AS MATERIALIZED (
  SELECT p.id
  FROM blasts b JOIN blast_pages p ON p.blast_id = b.id
  WHERE b.state IN ('finished', 'aborted')
    AND b.wake_at IS NULL
    AND b.finished_at < :until
    AND p.users IS NULL
    AND NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = p.id)
  ORDER BY p.id
  LIMIT :limit
  FOR UPDATE OF b, p SKIP LOCKED
)
DELETE FROM blast_pages p USING old
WHERE p.id = old.id
RETURNING
  p.blast_id,
  CASE WHEN p.sent_at IS NOT NULL THEN p.count ELSE 0 END AS sent
""")

# The blast keeps the number of people whom its deleted pages notified.
_KEEP_COUNT = text(f"""
UPDATE blasts b SET
  purged = b.purged + r.sent
FROM {rows("r", id="uuid", sent="int")}
WHERE b.id = r.id
""")

# The key stays, so that it never fires twice; of the people, how many.
_PURGE_BLASTS = text("""
UPDATE blasts b SET
  filter = '{"everyone": true}',
  message = '{}',
  cursor = NULL,
  total = b.purged
WHERE b.state IN ('finished', 'aborted')
  AND b.wake_at IS NULL
  AND b.finished_at < :until
  AND b.message <> '{}'
  AND NOT EXISTS (SELECT FROM blast_pages p WHERE p.blast_id = b.id)
""")


def purge(conn: Connection, until: datetime, limit: int) -> int:
    """Delete the content and the pages of blasts that ended before ``until`` and have no notifications any more.

    What is left of a blast is its key, its times and how many people it notified.

    Returns:
        How many pages were deleted; call again while that is ``limit``.
    """
    deleted = conn.execute(_PURGE, {"until": until, "limit": limit}).all()
    sent: Counter[str] = Counter()
    for page in deleted:
        sent[str(page.blast_id)] += page.sent
    if sent:
        conn.execute(_KEEP_COUNT, {"id": list(sent), "sent": list(sent.values())})
    conn.execute(_PURGE_BLASTS, {"until": until})
    return len(deleted)
