"""Receipts: recorded, and compared with open steps (to end them) and with sent messages (to find wasted ones)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications.store.ends import reach
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.transitions import settle_free
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS, CANCELLED, OPENED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@record
class Event:
    """A row of ``events``.

    Attributes:
        notification_id: the notification that it is about, which need not exist yet.
        kind: ``delivered``, ``clicked``, ``seen``, ``replied`` or ``cancelled``.
        source: the registration of the device, the provider's id of the message, or the id of the reply; empty: unknown.
        at: the time of the event, by the clock of its source.
        step: the step that it is about.
    """

    notification_id: str
    kind: str
    source: str
    at: datetime
    step: int


# The sorted order prevents a deadlock between transactions with the same events.
_INSERT_EVENTS = text(f"""
INSERT INTO events (
  notification_id,
  kind,
  registration,
  at,
  step
)
SELECT * FROM {rows("r", id="uuid", kind="text", registration="text", at="timestamptz", step="smallint")}
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING notification_id
""")


def insert_events(conn: Connection, events: Sequence[Event]) -> list[str]:
    """Write each event once; return the notification ids of the new events, sorted."""
    found = conn.execute(
        _INSERT_EVENTS,
        {
            "id": [e.notification_id for e in events],
            "kind": [e.kind for e in events],
            "registration": [e.source for e in events],
            "at": [e.at for e in events],
            "step": [e.step for e in events],
        },
    )
    return sorted({str(row.notification_id) for row in found})


def record_receipts(conn: Connection, receipts: Sequence[ReceiptEvent]) -> list[str]:
    """Write each receipt once, and return the ids of their notifications, sorted.

    A receipt for a notification that does not exist yet is kept. Commit the receipts before :func:`settle_receipts`: if
    another transaction keeps a delivery locked, its receipt must count all the same.
    """
    insert_events(
        conn, [Event(str(r.notification), r.kind.value, r.registration or "", r.at, r.step) for r in receipts]
    )
    return sorted({str(r.notification) for r in receipts})


def settle_receipts(conn: Connection, ids: Sequence[str], opened: Sequence[str] | None = None) -> list[str]:
    """End the open steps that receipts make unnecessary, reserved ones included.

    If a receipt comes after a message that it would have prevented, the message is noted as a wasted SMS. A click on a
    notification that has ended without an answer makes it ``reached``, and so does a receipt that it was seen elsewhere.

    Args:
        ids: the notifications.
        opened: those of them that somebody has clicked or seen; ``None``: it is looked which.

    Returns:
        The ids of notifications whose step another transaction has locked. They need no further call: a decision and a
        sender read the receipts once more before they act, and a step that stays open is decided when it is due.
    """
    locked = settle_free(conn, ids)
    note_wasted(conn, ids)
    reach(conn, _opened(conn, ids) if opened is None else opened)
    return locked


_OPENED = text(f"""
SELECT DISTINCT notification_id FROM events
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND kind IN {OPENED}
""")


def _opened(conn: Connection, ids: Sequence[str]) -> list[str]:
    return [str(row.notification_id) for row in conn.execute(_OPENED, {"ids": list(ids)})]


# One line per notification, whatever the number of its wasted messages.
_WASTED = text(f"""
SELECT
  d.notification_id,
  max(d.step) AS step,
  min(e.kind) FILTER (WHERE e.kind <> '{Receipt.DELIVERED}') AS answer
FROM deliveries d
JOIN events e ON e.notification_id = d.notification_id AND e.kind <> '{CANCELLED}' AND e.step < d.step AND {ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sent' AND NOT EXISTS (
  SELECT FROM decisions l WHERE l.notification_id = d.notification_id AND l.verdict = '{Note.WASTED_SMS}')
GROUP BY d.notification_id
""")

# The sender and the receipt recorder both check for wasted SMS. An advisory lock serialises them; row locks would
# deadlock, because each already holds rows that the other needs.
_ONE_AT_A_TIME = text("""
SELECT pg_advisory_xact_lock(hashtextextended(id, 3)) FROM (SELECT unnest(CAST(:ids AS text[])) AS id ORDER BY 1) wasted
""")


def lock_notes(conn: Connection, ids: Sequence[str]) -> None:
    """Let nobody else note wasted messages of these notifications until the end of the transaction."""
    conn.execute(_ONE_AT_A_TIME, {"ids": list(ids)})


def note_wasted(conn: Connection, ids: Sequence[str]) -> None:
    """Note in the ledger, once each, the notifications with a message that a receipt shows to be unnecessary.

    A receipt recorder calls it in its transaction, a sender after the commit of its record.
    """
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    if not wasted:
        return
    lock_notes(conn, [str(row.notification_id) for row in wasted])
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    write_ledger(
        conn,
        [
            Decision(str(row.notification_id), Note.WASTED_SMS, {"receipt": row.answer or Receipt.DELIVERED}, row.step)
            for row in wasted
        ],
    )
