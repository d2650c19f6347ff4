"""Receipts and cancellations, and the steps that they make needless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.lifecycle import NotificationState, Verdict
from knocktwice_worker.notifications.store.transitions import ANSWERS, Decision, finish, settle_answered, write_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_INSERT_EVENTS = text("""
INSERT INTO events (notification_id, kind, registration, at, step)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:registrations AS text[]), CAST(:times AS timestamptz[]),
                     CAST(:steps AS smallint[]))
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING notification_id, kind
""")

_WASTED = text(f"""
SELECT d.notification_id, max(d.step) AS step, max(e.kind) FILTER (WHERE e.kind = 'clicked') AS clicked FROM deliveries d
JOIN events e ON e.notification_id = d.notification_id AND e.kind <> 'cancelled' AND e.step < d.step AND {ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sent'
  AND NOT EXISTS (SELECT FROM decisions l WHERE l.notification_id = d.notification_id AND l.verdict = 'wasted_sms')
GROUP BY d.notification_id
""")

# Who records the message and who records the receipt both look: the second of two waits here, and then sees the first one's
# note. No rows, because by now either holds some that the other wants.
_ONE_AT_A_TIME = text("""
SELECT pg_advisory_xact_lock(hashtextextended(id, 3)) FROM (SELECT unnest(CAST(:ids AS text[])) AS id ORDER BY 1) wasted
""")


def record_receipts(conn: Connection, receipts: Sequence[ReceiptEvent]) -> None:
    """Write receipts, once each, and end the fallbacks they make needless, also those reserved but not yet claimed.

    A receipt for a notification that is not there yet is kept. One that
    would have made the SMS needless but comes after it is noted as a wasted SMS.
    """
    fresh = _insert_events(
        conn, [(str(r.notification), r.kind.value, r.registration or "", r.at, r.step) for r in receipts]
    )
    if not fresh:
        return
    settle_answered(conn, fresh)
    note_wasted(conn, fresh)


def note_wasted(conn: Connection, ids: Sequence[str]) -> None:
    """Note the messages among ``ids`` that a receipt shows to have been needless, once each.

    Who records a receipt calls it, and who has committed that a message was sent.
    """
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    if not wasted:
        return
    conn.execute(_ONE_AT_A_TIME, {"ids": [str(row.notification_id) for row in wasted]})
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    write_ledger(
        conn,
        [
            Decision(
                str(row.notification_id), Verdict.WASTED_SMS, {"receipt": row.clicked or Receipt.DELIVERED}, row.step
            )
            for row in wasted
        ],
    )


def cancel(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> None:
    """Stop notifications at whatever point before the provider call they are. Unknown ids are remembered.

    An SMS that a sender has claimed is no longer stopped; a push that is on its way is not called back. Nor are rows that
    somebody is just writing: for those, commit what :func:`note_cancelled` wrote, and then call :func:`settle_cancelled`.
    """
    _stop(conn, note_cancelled(conn, ids, keys, now))


def note_cancelled(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> list[str]:
    """Remember these notifications as cancelled, known or not, and return their ids."""
    found = conn.execute(text("SELECT id FROM notifications WHERE key = ANY(:keys)"), {"keys": list(keys)}).all()
    wanted = sorted({*ids, *(str(row.id) for row in found)})
    _insert_events(conn, [(i, "cancelled", "", now, 0) for i in wanted])
    return wanted


def settle_cancelled(conn: Connection, ids: Sequence[str]) -> None:
    """Stop those among ``ids`` that are cancelled. Both who cancels and who writes rows calls it after their commit."""
    query = text(
        "SELECT notification_id FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND kind = 'cancelled'"
    )
    if found := sorted({str(row.notification_id) for row in conn.execute(query, {"ids": list(ids)})}):
        _stop(conn, found)


def _stop(conn: Connection, ids: Sequence[str]) -> None:
    settle_answered(conn, ids)
    # Without a fallback there is only the push to stop, and only while it waits for its time or to be tried again. One with a
    # fallback ends with that, unless it was on its way and came back when all was over.
    waiting = conn.execute(_CANCEL_PUSH, {"ids": list(ids)}).all()
    finish(conn, [(str(row.notification_id), NotificationState.CANCELLED, "cancelled") for row in waiting])


_CANCEL_PUSH = text("""
UPDATE deliveries d SET state = 'cancelled', reason = 'cancelled', wake_at = NULL, finished_at = knocktwice_now()
FROM (
  SELECT p.notification_id FROM deliveries p
  WHERE p.notification_id = ANY(CAST(:ids AS uuid[])) AND p.step = 0 AND p.state = 'scheduled'
    AND (NOT EXISTS (SELECT FROM deliveries s WHERE s.notification_id = p.notification_id AND s.step = 1)
      OR EXISTS (SELECT FROM notifications n WHERE n.id = p.notification_id AND n.state <> 'active'))
  ORDER BY p.notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 0
RETURNING d.notification_id
""")


def _insert_events(conn: Connection, events: Sequence[tuple[str, str, str, datetime, int]]) -> list[str]:
    names = ("ids", "kinds", "registrations", "times", "steps")
    columns = zip(*events, strict=True) if events else [()] * len(names)
    rows = conn.execute(_INSERT_EVENTS, {n: list(column) for n, column in zip(names, columns, strict=True)})
    return sorted({str(row.notification_id) for row in rows})
