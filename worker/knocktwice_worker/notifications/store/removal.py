"""Removes personal data from rows, and deletes rows: for erased people and for old notifications.

No state changes here. The notifications have ended and the caller has locked them, so no worker touches them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence

# People read the reason of a cancellation; this reason names the erasure as the cause.
_SAY_ERASED = text("""
UPDATE notifications SET reason = 'erased' WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'cancelled'
""")


def say_erased(conn: Connection, ids: Sequence[str]) -> None:
    """Set the reason of cancelled notifications to the erasure of their person."""
    conn.execute(_SAY_ERASED, {"ids": list(ids)})


# The first word of a reason is ours. The text after the colon may quote a provider, and with it a number or a token.
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
    """Remove everything from notifications by which their person could be identified."""
    for statement in _BLANK:
        conn.execute(statement, {"ids": list(ids)})


# Children are deleted first: otherwise the database's foreign keys would search them one notification at a time.
_DELETE = (
    text("DELETE FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM attempts WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM decisions WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("DELETE FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"),
)


def delete(conn: Connection, ids: Sequence[str]) -> None:
    """Delete notifications, with all rows of the store about them."""
    for statement in _DELETE:
        conn.execute(statement, {"ids": list(ids)})


# A receipt may come before its notification, but by no more than the longest delay.
_FORGET_ORPHANS = text("""
DELETE FROM events e
WHERE received_at < knocktwice_now() - interval '31 days'
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.id = e.notification_id)
""")


def forget_orphans(conn: Connection) -> int:
    """Delete receipts and cancellations whose notification never came, and return how many."""
    return conn.execute(_FORGET_ORPHANS).rowcount
