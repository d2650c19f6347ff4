"""Receipts, the steps that they make needless, and the messages that they show to have been needless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.transitions import settle_free
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS, CANCELLED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """A row of ``events``.

    Attributes:
        notification_id: whose; the notification need not be there yet.
        kind: ``delivered``, ``clicked`` or ``cancelled``.
        source: the registration of the device, or the provider's id of the message; empty: nobody in particular.
        at: when it happened, by the clock of its source.
        step: the step that it is about.
    """

    notification_id: str
    kind: str
    source: str
    at: datetime
    step: int


# Sorted, so that two transactions with the same events wait for each other instead of deadlocking.
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
    """Write events once each; return the notification ids of those that were new, sorted."""
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
    """Write receipts, once each, and return the ids of their notifications, sorted.

    A receipt for a notification that is not there yet is kept. Commit them before :func:`settle_receipts`: a row that somebody
    keeps locked must not keep a receipt from counting.
    """
    insert_events(
        conn, [Event(str(r.notification), r.kind.value, r.registration or "", r.at, r.step) for r in receipts]
    )
    return sorted({str(r.notification) for r in receipts})


def settle_receipts(conn: Connection, ids: Sequence[str]) -> list[str]:
    """End the open steps of notifications that their receipts make needless, also those that are reserved.

    A receipt that would have made a message needless but comes after it is noted as a wasted SMS.

    Returns:
        The ids of those whose step somebody has locked. They may be left alone: a decision and a sender look at the receipts
        once more before they act, and what they leave open is decided when it is due.
    """
    locked = settle_free(conn, ids)
    note_wasted(conn, ids)
    return locked


# One line per notification, however many of its messages were wasted.
_WASTED = text(f"""
SELECT
  d.notification_id,
  max(d.step) AS step,
  max(e.kind) FILTER (WHERE e.kind = '{Receipt.CLICKED}') AS clicked
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


def note_wasted(conn: Connection, ids: Sequence[str]) -> None:
    """Note in the ledger which of these notifications had a message that a receipt shows to be needless, once each.

    A receipt recorder calls it in its transaction, a sender after the commit of its record.
    """
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    if not wasted:
        return
    conn.execute(_ONE_AT_A_TIME, {"ids": [str(row.notification_id) for row in wasted]})
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    write_ledger(
        conn,
        [
            Decision(str(row.notification_id), Note.WASTED_SMS, {"receipt": row.clicked or Receipt.DELIVERED}, row.step)
            for row in wasted
        ],
    )
