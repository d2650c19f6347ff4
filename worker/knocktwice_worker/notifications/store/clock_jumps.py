"""Rows that fell asleep while the database's clock was ahead: they are woken when it is right again.

A clock that jumps ahead and comes back leaves leases, countdowns and stamps in the future. Nobody looks at such a row until
that time has really come. All times are the database's, so all of it is mended here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: A clock that goes back by less is only being corrected, and what sleeps for longer than it should by less is left
#: alone.
TOLERANCE = timedelta(minutes=1)
#: Rows mended in one transaction.
_AT_ONCE = 500
_NO_ID = "00000000-0000-0000-0000-000000000000"

# A countdown behind a step that was handed over in the future counts from now. A time that the application asked for
# (of a push, or of a first step) stays; one that meant "at once" is now. Everything else that sleeps for longer than
# until its time is a lease, a retry or a wait: it is woken, and whoever looks at it lets it wait again if it must.
_WAKE = text("""
WITH asleep AS (
  SELECT
    d.notification_id,
    d.step,
    d.wake_at,
    c.due
  FROM deliveries d
  JOIN notifications n ON n.id = d.notification_id
  LEFT JOIN deliveries p ON d.step > 0 AND p.notification_id = d.notification_id AND p.step = d.after_step
    AND p.step < d.step
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN d.state <> 'scheduled' OR d.due_at IS NULL THEN knocktwice_now()
      WHEN d.trigger IS NULL AND d.due_at <= n.created_at + :tolerance THEN knocktwice_now()
      WHEN d.trigger IS NOT NULL AND coalesce(p.claimed_at, p.finished_at) > knocktwice_now() + :tolerance
        THEN d.due_at - (coalesce(p.claimed_at, p.finished_at) - knocktwice_now())
      ELSE d.due_at
    END AS due
  ) c
  WHERE d.wake_at > knocktwice_now() + :tolerance
    AND d.wake_at > greatest(c.due, knocktwice_now()) + :tolerance
    AND d.notification_id > :after
  ORDER BY d.notification_id LIMIT :limit FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET
  wake_at = greatest(a.due, knocktwice_now()),
  due_at = CASE WHEN d.due_at > a.due THEN a.due ELSE d.due_at END,
  claimed_at = CASE WHEN d.claimed_at > knocktwice_now() THEN knocktwice_now() ELSE d.claimed_at END,
  counted_at = CASE WHEN d.counted_at > knocktwice_now() THEN knocktwice_now() ELSE d.counted_at END,
  missed_at = CASE WHEN d.missed_at > knocktwice_now() THEN knocktwice_now() ELSE d.missed_at END
FROM asleep a
WHERE d.notification_id = a.notification_id AND d.step = a.step
RETURNING
  d.notification_id,
  d.step,
  a.wake_at AS slept_until
""")

# The countdown behind a push adds what lies between its claim and its end (store/due.py), so neither may be in the
# future.
_RESTAMP = text("""
UPDATE deliveries d SET
  claimed_at = CASE WHEN d.claimed_at > knocktwice_now() THEN knocktwice_now() ELSE d.claimed_at END,
  finished_at = knocktwice_now()
FROM (
  SELECT notification_id, step FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND finished_at > knocktwice_now()
  ORDER BY notification_id, step FOR UPDATE SKIP LOCKED
) f
WHERE d.notification_id = f.notification_id AND d.step = f.step
""")

# What happens from now on would otherwise be noticed when the wrong time has really come.
_FOLLOW = text("UPDATE followers SET seen_until = knocktwice_now() WHERE seen_until > knocktwice_now() + :tolerance")


def wake(engine: Engine) -> int:
    """Wake all deliveries that sleep for longer than any plan lets them; return how many there were."""
    after, woken = _NO_ID, 0
    while True:
        with engine.begin() as conn:
            some = _wake_some(conn, after)
            if not some:
                conn.execute(_FOLLOW, {"tolerance": TOLERANCE})
                return woken
        after, woken = max(some), woken + len(some)


def _wake_some(conn: Connection, after: str) -> list[str]:
    rows = conn.execute(_WAKE, {"tolerance": TOLERANCE, "after": after, "limit": _AT_ONCE}).all()
    ids = [str(row.notification_id) for row in rows]
    if rows:
        conn.execute(_RESTAMP, {"ids": ids})
        lines = [
            Decision(id_, Note.CLOCK_JUMPED, {"slept_until": f"{row.slept_until:%Y-%m-%d %H:%M} UTC"}, row.step)
            for id_, row in zip(ids, rows, strict=True)
        ]
        write_ledger(conn, lines)
    return ids
