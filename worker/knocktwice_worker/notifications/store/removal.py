"""Rows emptied of personal data, and rows deleted: for the privacy of people and for what is old.

No state changes here, and nobody works on these notifications any more: the caller has locked them, and they have
ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence

# The reason of a cancellation is for people; this one says who asked for it.
_SAY_ERASED = text("""
UPDATE notifications SET reason = 'erased' WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'cancelled'
""")


def say_erased(conn: Connection, ids: Sequence[str]) -> None:
    """Let cancelled notifications say that they were cancelled because their person was erased."""
    conn.execute(_SAY_ERASED, {"ids": list(ids)})


# A reason begins with a word of ours. What follows the colon may be a provider's, and quote a number or a token.
_BLANK = (
    text("""
    UPDATE deliveries SET
      number = NULL,
      text = NULL,
      fingerprint = NULL,
      reason = split_part(reason, ':', 1)
    WHERE notification_id = ANY(CAST(:ids AS uuid[]))
    """),
    text("""
    UPDATE attempts SET
      registration = 'erased-' || gen_random_uuid(),
      reason = split_part(reason, ':', 1)
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND NOT starts_with(registration, 'erased-')
    """),
    text("""
    UPDATE events SET registration = 'erased-' || gen_random_uuid()
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND registration <> ''
      AND NOT starts_with(registration, 'erased-')
    """),
    text("UPDATE decisions SET inputs = '{}' WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND inputs <> '{}'"),
    text("""
    UPDATE notifications SET
      user_id = NULL,
      phone = NULL,
      params = '{}',
      key = NULL,
      locale = NULL,
      reason = split_part(reason, ':', 1)
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """),
)


def blank(conn: Connection, ids: Sequence[str]) -> None:
    """Empty notifications of everything by which one could tell whom they were for."""
    for statement in _BLANK:
        conn.execute(statement, {"ids": list(ids)})


# The children first: the database would look for them one notification at a time.
_DELETE = (
    text("DELETE FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM attempts WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM decisions WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"),
)


def delete(conn: Connection, ids: Sequence[str]) -> None:
    """Delete notifications with everything about them that is the store's."""
    for statement in _DELETE:
        conn.execute(statement, {"ids": list(ids)})


# A receipt may overtake its notification, but not by more than the longest delay.
_FORGET_ORPHANS = text("""
DELETE FROM events e
WHERE received_at < knocktwice_now() - interval '31 days'
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.id = e.notification_id)
""")


def forget_orphans(conn: Connection) -> int:
    """Delete receipts and cancellations whose notification never came, and return how many."""
    return conn.execute(_FORGET_ORPHANS).rowcount
