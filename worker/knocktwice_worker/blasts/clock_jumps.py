"""Blasts that fell asleep while the database's clock was ahead go on when it is right again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from datetime import timedelta

# Leases, and the next page of a throttle. A blast that is woken too early looks at its pages, and waits again.
_BLASTS = text("""
UPDATE blasts SET
  wake_at = knocktwice_now(),
  next_at = least(next_at, knocktwice_now())
WHERE wake_at > knocktwice_now() + :tolerance
RETURNING id
""")

# A page that is handed out again carries the ids of its first time. Pages of the future would use up the throttle's
# minute until that time has really come.
_PAGES = text("""
UPDATE blast_pages SET
  wake_at = least(wake_at, knocktwice_now()),
  released_at = least(released_at, knocktwice_now())
WHERE released_at > knocktwice_now() + :tolerance
""")


def wake(conn: Connection, tolerance: timedelta) -> int:
    """Wake the blasts and pages that sleep into a future which the clock has left; return how many blasts.

    Recurring blasts stay as they are: what the wrong clock started early has had its turn.
    """
    conn.execute(_PAGES, {"tolerance": tolerance})
    return len(conn.execute(_BLASTS, {"tolerance": tolerance}).all())
