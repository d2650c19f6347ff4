"""Messages that are allowed: each takes its number, and what will be sent stands in its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

# Who has the number already keeps it. Two decisions at once wait for each other at the key; sorted, they never
# deadlock.
_TAKE_NUMBERS = text(f"""
INSERT INTO blast_numbers AS b (blast_id, number, notification_id)
SELECT blast_id, number, notification_id
FROM {rows("r", blast_id="uuid", number="bytea", notification_id="uuid")}
ORDER BY blast_id, number
ON CONFLICT (blast_id, number) DO UPDATE SET
  notification_id = excluded.notification_id
WHERE b.notification_id = excluded.notification_id
RETURNING notification_id
""")


def take_numbers(conn: Connection, wanted: Mapping[tuple[str, bytes], str]) -> set[str]:
    """Give each number of a blast to one notification, so that who shares a number gets its message once.

    Args:
        wanted: blast id and the hash of the number → notification id.

    Returns:
        The notifications that have their number; all others are to be skipped.
    """
    if not wanted:
        return set()
    blasts, numbers = zip(*wanted, strict=True)
    values = {"blast_id": list(blasts), "number": list(numbers), "notification_id": list(wanted.values())}
    return {str(row.notification_id) for row in conn.execute(_TAKE_NUMBERS, values)}


@record
class Reservation:
    """A message that the limits allow.

    Attributes:
        notification_id: the notification that it belongs to.
        number, text, sender: the values with which it will be sent.
        fingerprint: the hash of the text, by which a repeat to the same number is recognised.
        parts: the SMS parts. Messages of other channels have 0.
        test: no provider gets it; from now on the row names what stands in for one.
    """

    notification_id: str
    number: str
    text: str
    fingerprint: bytes
    parts: int = 1
    sender: str | None = None
    test: bool = False


# A receipt may have come since the step was decided about: it wins. So does a push that is being handed over to another
# device: no push may be under way while the message is.
_RESERVE = text(f"""
UPDATE deliveries d SET
  state = 'reserved',
  number = r.number,
  text = r.text,
  fingerprint = r.fingerprint,
  parts = r.parts,
  sender = r.sender,
  provider = CASE WHEN r.test THEN '{STAND_IN}' ELSE d.provider END,
  counted_at = knocktwice_now(),
  wake_at = knocktwice_now() + :lease
FROM {
    rows(
        "r",
        id="uuid",
        number="text",
        text="text",
        fingerprint="bytea",
        parts="smallint",
        sender="text",
        test="boolean",
    )
}
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "scheduled")}
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {ANSWERS})
  AND NOT EXISTS (
    SELECT FROM deliveries p
    WHERE p.notification_id = d.notification_id AND p.step = 0 AND {is_in("p.state", "sending")})
RETURNING d.notification_id
""")


def reserve(conn: Connection, reservations: Sequence[Reservation], lease: timedelta) -> set[str]:
    """Reserve messages that the limits allow; return the ids that no receipt has overtaken."""
    if not reservations:
        return set()
    found = conn.execute(
        _RESERVE,
        {
            "id": [r.notification_id for r in reservations],
            "number": [r.number for r in reservations],
            "text": [r.text for r in reservations],
            "fingerprint": [r.fingerprint for r in reservations],
            "parts": [r.parts for r in reservations],
            "sender": [r.sender for r in reservations],
            "test": [r.test for r in reservations],
            "lease": lease,
        },
    )
    return {str(row.notification_id) for row in found}
