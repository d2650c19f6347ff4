"""What is due, and what was decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_worker.lifecycle import DeliveryState, Verdict
from knocktwice_worker.notifications.store.transitions import ANSWERS, Decision, is_in, write_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Reservation:
    """A message that passed its limits: number, text and sender as they will be sent, and the parts of an SMS."""

    notification_id: str
    number: str
    text: str
    fingerprint: bytes
    parts: int = 1
    sender: str | None = None


# A push whose sender's lease ran out goes back to "scheduled", so that exactly one claims it again.
_RING = text("""
UPDATE deliveries d SET wake_at = knocktwice_now() + :lease,
  state = CASE WHEN d.step = 0 AND d.state = 'sending' THEN 'scheduled' ELSE d.state END
FROM (
  SELECT notification_id, step FROM deliveries WHERE wake_at <= knocktwice_now() AND (step = 0 OR :sms)
  ORDER BY wake_at LIMIT :limit FOR UPDATE SKIP LOCKED
) due
WHERE d.notification_id = due.notification_id AND d.step = due.step
RETURNING d.notification_id, d.step, d.state
""")


def ring(conn: Connection, *, limit: int, lease: timedelta, sms: bool = True) -> Sequence[Row[Any]]:
    """Claim up to ``limit`` deliveries whose time has come; rows of ``notification_id, step, state``.

    Each is claimed for ``lease``: if what is published for it gets lost, it rings again.

    Args:
        sms: whether SMS steps may ring, too, or only pushes.
    """
    return conn.execute(_RING, {"limit": limit, "lease": lease, "sms": sms}).all()


# Locked in the order in which receipts lock, so that the two wait for each other and never deadlock.
_DUE = text("""
WITH d AS (
  SELECT * FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'scheduled' AND due_at <= knocktwice_now()
  ORDER BY notification_id FOR UPDATE
)
SELECT d.notification_id, d.step, d.channel, d.trigger, d.due_at, d.after_step, p.state AS before,
       p.channel AS before_channel, p.provider_status, n.params, n.locale, n.batch_id, n.user_id,
       coalesce(n.phone, ph.number) AS number, o.number IS NOT NULL AS opted_out,
       n.phone IS NOT NULL OR ph.consented_at IS NOT NULL AS consented, e.delivered, e.clicked, e.cancelled, knocktwice_now() AS now
FROM d
JOIN notifications n ON n.id = d.notification_id AND n.state = 'active'
LEFT JOIN deliveries p ON p.notification_id = d.notification_id AND p.step = d.after_step
LEFT JOIN phones ph ON ph.user_id = n.user_id
LEFT JOIN opt_outs o ON o.number = coalesce(n.phone, ph.number)
LEFT JOIN LATERAL (
  SELECT min(received_at) FILTER (WHERE kind = 'delivered' AND step >= d.after_step) AS delivered,
         min(received_at) FILTER (WHERE kind = 'clicked') AS clicked,
         min(received_at) FILTER (WHERE kind = 'cancelled') AS cancelled
  FROM events WHERE notification_id = d.notification_id
) e ON true
-- A push that is late itself starts the countdown anew when it goes out.
WHERE p.state IS NULL OR p.step > 0 OR p.claimed_at IS NOT NULL
ORDER BY d.due_at, d.notification_id
""")

_RESERVE = text(f"""
UPDATE deliveries d SET state = 'reserved', number = r.number, text = r.text, fingerprint = r.fingerprint,
  parts = r.parts, sender = r.sender, counted_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS text[]), CAST(:texts AS text[]), CAST(:fingerprints AS bytea[]),
            CAST(:parts AS smallint[]), CAST(:senders AS text[])) AS r(id, number, text, fingerprint, parts, sender)
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "scheduled")}
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {ANSWERS})
RETURNING d.notification_id
""")

_POSTPONE = text("""
UPDATE deliveries SET wake_at = knocktwice_now() + :delay
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = ANY(:states)
""")


def due(conn: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Lock fallbacks that are due by the database's clock and return the facts about them; the others are left out."""
    return conn.execute(_DUE, {"ids": list(ids)}).all()


def contents(conn: Connection, ids: Iterable[Any]) -> dict[str, Row[Any]]:
    """Return batch id → row of ``content, plan, category, ttl``."""
    wanted = sorted({str(i) for i in ids})
    query = text("SELECT id, content, plan, category, ttl FROM batches WHERE id = ANY(CAST(:ids AS uuid[]))")
    return {str(row.id): row for row in conn.execute(query, {"ids": wanted})}


def reserve(conn: Connection, reservations: Sequence[Reservation], lease: timedelta) -> set[str]:
    """Reserve SMS that passed their limits; return the ids that won against a receipt arriving just now."""
    if not reservations:
        return set()
    rows = conn.execute(
        _RESERVE,
        {
            "ids": [r.notification_id for r in reservations],
            "numbers": [r.number for r in reservations],
            "texts": [r.text for r in reservations],
            "fingerprints": [r.fingerprint for r in reservations],
            "parts": [r.parts for r in reservations],
            "senders": [r.sender for r in reservations],
            "lease": lease,
        },
    )
    return {str(row.notification_id) for row in rows}


_HOLD_UNTIL = text("""
UPDATE deliveries d SET wake_at = r.at
FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS r(id, at)
WHERE d.notification_id = r.id AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
RETURNING d.notification_id, d.step
""")


def hold_until(conn: Connection, until: Mapping[str, datetime]) -> None:
    """Look at these again when their recipients' quiet hours are over, and say so in the ledger."""
    if not until:
        return
    rows = conn.execute(_HOLD_UNTIL, {"ids": list(until), "times": list(until.values())}).all()
    held = ((str(row.notification_id), row.step) for row in rows)
    write_ledger(conn, [Decision(i, Verdict.QUIET_HOURS, {"until": until[i]}, step) for i, step in held])


def time_zones(conn: Connection, users: Sequence[str]) -> dict[str, str]:
    """Return user → the time zone that the device they used last has reported, or else what the application says."""
    query = text("""
    SELECT u.id, coalesce((
        SELECT time_zone FROM devices WHERE user_id = u.id AND time_zone IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
      ), u.time_zone) AS time_zone
    FROM users u WHERE u.id = ANY(:users)
    """)
    return {row.id: row.time_zone for row in conn.execute(query, {"users": list(users)}) if row.time_zone}


def postpone(conn: Connection, ids: Sequence[str], delay: timedelta) -> None:
    """Look at these again after ``delay``; nothing about them changes."""
    if ids:
        states = [DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING]
        conn.execute(_POSTPONE, {"ids": list(ids), "delay": delay, "states": [str(s) for s in states]})


_POSTPONE_PUSHES = text("""
UPDATE deliveries
SET wake_at = knocktwice_now() + :delay
WHERE notification_id = ANY(CAST(:ids AS uuid[]))
  AND step = 0
  AND state = 'scheduled'
""")


def postpone_pushes(conn: Connection, ids: Sequence[str], delay: timedelta) -> None:
    """Take these pushes up after ``delay``; nothing about them changes."""
    if ids:
        conn.execute(_POSTPONE_PUSHES, {"ids": list(ids), "delay": delay})
