"""Steps that wait for longer: for the end of the night, for a pace, or for a look at the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Delay, DeliveryState
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

# Reserved messages are postponed, too: quiet hours may begin while a message waits for its sender.
_POSTPONE_UNTIL = text(f"""
UPDATE deliveries d SET wake_at = r.at
FROM {rows("r", id="uuid", at="timestamptz")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
RETURNING d.notification_id, d.step
""")


def postpone_until(conn: Connection, until: Mapping[str, datetime]) -> None:
    """Postpone these steps to the end of their recipients' quiet hours, and write that to the ledger."""
    if not until:
        return
    found = conn.execute(_POSTPONE_UNTIL, {"id": list(until), "at": list(until.values())}).all()
    waiting = [(str(row.notification_id), row.step) for row in found]
    write_ledger(conn, [Decision(i, Delay.QUIET_HOURS, {"until": until[i]}, step) for i, step in waiting])


def look_at(conn: Connection, when: Mapping[str, datetime]) -> None:
    """Look at each of these again at its own time; nothing else about them changes."""
    if when:
        conn.execute(_POSTPONE_UNTIL, {"id": list(when), "at": list(when.values())})


# Whatever is open: a step's state says what is done with it when it rings.
_POSTPONE = text("""
UPDATE deliveries SET wake_at = knocktwice_now() + :delay
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = ANY(:states)
""")


def postpone(conn: Connection, ids: Sequence[str], delay: timedelta) -> None:
    """Postpone these steps by ``delay``; nothing else about them changes."""
    if ids:
        states = [DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING]
        conn.execute(_POSTPONE, {"ids": list(ids), "delay": delay, "states": [str(s) for s in states]})


# Each message gets its own wait, because each has its own place in the queue for its sender's pace.
_POSTPONE_EACH = text(f"""
UPDATE deliveries d SET
  wake_at = knocktwice_now() + r.wait,
  reason = :reason
FROM {rows("r", id="uuid", wait="interval")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state = 'reserved'
""")


def postpone_each(conn: Connection, waits: Mapping[str, timedelta], reason: str) -> None:
    """Postpone each of these reserved messages by its own wait, and say why; nothing else about them changes."""
    if waits:
        conn.execute(_POSTPONE_EACH, {"id": list(waits), "wait": list(waits.values()), "reason": reason})


# The device's zone has priority over the application's: the device knows where it is.
_TIME_ZONES = text("""
SELECT
  u.id,
  coalesce((
    SELECT time_zone FROM devices WHERE user_id = u.id AND time_zone IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
  ), u.time_zone) AS time_zone
FROM users u WHERE u.id = ANY(:users)
""")


def time_zones(conn: Connection, users: Sequence[str]) -> dict[str, str]:
    """Return user → the time zone that their last used device has reported, or else the application's value."""
    return {row.id: row.time_zone for row in conn.execute(_TIME_ZONES, {"users": list(users)}) if row.time_zone}


_POSTPONE_PUSHES = text("""
UPDATE deliveries
SET wake_at = knocktwice_now() + :delay
WHERE notification_id = ANY(CAST(:ids AS uuid[]))
  AND step = 0
  AND state = 'scheduled'
""")


def postpone_pushes(conn: Connection, ids: Sequence[str], delay: timedelta) -> None:
    """Postpone these pushes by ``delay``; nothing else about them changes."""
    if ids:
        conn.execute(_POSTPONE_PUSHES, {"ids": list(ids), "delay": delay})
