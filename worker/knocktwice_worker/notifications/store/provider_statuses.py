"""What a provider reports of messages it took: written once each, in whatever order and however often it comes.

Of the reports about one message the strongest stays (:class:`~knocktwice_worker.lifecycle.ProviderState`), so any order ends
in the same rows. ``delivered`` and ``read`` become receipts of their step, which end the later ones as a device's would; a
message that will not arrive makes the step behind it due at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, text

from knocktwice_shared.messages import Receipt
from knocktwice_worker.lifecycle import LOST, DeliveryState, ProviderState
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from knocktwice_worker.channels.reports import StatusReport

_ORDER = list(ProviderState)
_RECEIPTS = {ProviderState.DELIVERED: Receipt.DELIVERED, ProviderState.READ: Receipt.CLICKED}


class _Place(NamedTuple):
    notification_id: str
    step: int


_FIND = text("SELECT notification_id, step, provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0")

# What a sender holds for the time of its provider call is skipped: waiting for one would hold up all the others. A message
# without an id belongs to the provider that was chosen for it.
_LOCK = text("""
SELECT d.notification_id, d.step, d.state, r.provider_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:provider_ids AS text[]), CAST(:providers AS text[]))
  AS r(id, step, provider_id, provider)
JOIN deliveries d ON d.notification_id = r.id AND d.step = r.step
WHERE d.step > 0 AND (d.provider_id = r.provider_id
  OR (d.provider_id IS NULL AND d.claimed_at IS NOT NULL AND d.provider = r.provider))
ORDER BY d.notification_id, d.step FOR UPDATE OF d SKIP LOCKED
""")

_RECORD = text("""
UPDATE deliveries d SET provider_status = r.status, provider_error = r.error, provider_error_text = r.error_text,
  provider_status_at = r.at, provider_id = coalesce(d.provider_id, r.provider_id), heard_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:provider_ids AS text[]), CAST(:statuses AS text[]),
            CAST(:errors AS int[]), CAST(:error_texts AS text[]), CAST(:times AS timestamptz[]))
  AS r(id, step, provider_id, status, error, error_text, at)
WHERE d.notification_id = r.id AND d.step = r.step
  AND coalesce(array_position(CAST(:order AS text[]), d.provider_status), 0)
      < array_position(CAST(:order AS text[]), r.status)
RETURNING d.notification_id, d.step, d.provider_status
""")

_INSERT_EVENTS = text("""
INSERT INTO events (notification_id, kind, registration, step, at)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:provider_ids AS text[]), CAST(:steps AS smallint[]),
                     CAST(:times AS timestamptz[]))
ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING
RETURNING notification_id, kind
""")

_NEXT_NOW = text("""
UPDATE deliveries d SET due_at = knocktwice_now(), wake_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[])) AS r(id, step)
WHERE d.notification_id = r.id AND d.step > r.step AND d.after_step = r.step AND d.state = 'scheduled'
  AND d.due_at > knocktwice_now()
""")


def record(conn: Connection, reports: Sequence[StatusReport]) -> set[str]:
    """Write reports, end the steps they make needless and ring those they make due.

    Repeats, old reports and any order are harmless. The number of queries does not depend on how many there are.

    Returns:
        The provider ids about which nothing could be written: unknown here, or held by a sender at this moment. Bring
        their reports again some seconds later, for a while; messages that are not ours stay unknown for ever.
    """
    if not reports:
        return set()
    by = {report.provider_id: report.provider for report in reports}
    locked = _lock(conn, _places(conn, reports), by)
    known = {row.provider_id: _Place(str(row.notification_id), row.step) for row in locked}
    _adopt(conn, locked)
    strongest: dict[str, StatusReport] = {}
    for report in reports:
        if report.provider_id in known:
            so_far = strongest.setdefault(report.provider_id, report)
            if _ORDER.index(report.status) > _ORDER.index(so_far.status):
                strongest[report.provider_id] = report
    _write(conn, strongest, known)
    _receive(conn, [r for r in reports if r.provider_id in known and r.status in _RECEIPTS], known)
    return {r.provider_id for r in reports} - set(known)


def _places(conn: Connection, reports: Iterable[StatusReport]) -> dict[str, _Place]:
    places = {r.provider_id: _Place(*r.intent) for r in reports if r.intent is not None}
    rows = conn.execute(_FIND, {"ids": sorted({r.provider_id for r in reports})})
    # What we have written down goes before what an address says.
    return places | {row.provider_id: _Place(str(row.notification_id), row.step) for row in rows}


def _lock(conn: Connection, places: Mapping[str, _Place], by: Mapping[str, str]) -> Sequence[Row[Any]]:
    wanted = {
        "ids": [p.notification_id for p in places.values()],
        "steps": [p.step for p in places.values()],
        "provider_ids": list(places),
        "providers": [by[provider_id] for provider_id in places],
    }
    rows = conn.execute(_LOCK, wanted).all()
    # Of two messages that claim one delivery, as after a send that was repeated, the first is the one.
    return list({(row.notification_id, row.step): row for row in reversed(rows)}.values())


def _adopt(conn: Connection, locked: Sequence[Row[Any]]) -> None:
    """Record as sent what the provider evidently took and nobody could record."""
    lost = [row for row in locked if row.state in (DeliveryState.SENDING, DeliveryState.RESERVED)]
    if not lost:
        return
    store.take_back(conn, [str(row.notification_id) for row in lost], [row.step for row in lost])
    store.record_sms(
        conn,
        [
            store.SmsResult(
                str(row.notification_id),
                DeliveryState.SENT,
                provider_id=row.provider_id,
                reason="the provider called back about it",
            )
            for row in lost
        ],
    )


def _write(conn: Connection, strongest: Mapping[str, StatusReport], known: Mapping[str, _Place]) -> None:
    # Sorted like the locks.
    reports = sorted(strongest.values(), key=lambda r: known[r.provider_id])
    places = [known[r.provider_id] for r in reports]
    rows = conn.execute(
        _RECORD,
        {
            "ids": [p.notification_id for p in places],
            "steps": [p.step for p in places],
            "provider_ids": [r.provider_id for r in reports],
            "statuses": [str(r.status) for r in reports],
            "errors": [r.error for r in reports],
            "error_texts": [r.error_text for r in reports],
            "times": [r.at for r in reports],
            "order": [str(s) for s in _ORDER],
        },
    ).all()
    lost = [row for row in rows if row.provider_status in LOST]
    if lost:
        # All that this transaction may come to change, because receipts lock in this order, too.
        store.lock_open(conn, sorted({place.notification_id for place in known.values()}))
        conn.execute(_NEXT_NOW, {"ids": [r.notification_id for r in lost], "steps": [r.step for r in lost]})


def _receive(conn: Connection, reports: Sequence[StatusReport], known: Mapping[str, _Place]) -> None:
    if not reports:
        return
    places = [known[r.provider_id] for r in reports]
    rows = conn.execute(
        _INSERT_EVENTS,
        {
            "ids": [p.notification_id for p in places],
            "kinds": [str(_RECEIPTS[r.status]) for r in reports],
            "provider_ids": [r.provider_id for r in reports],
            "steps": [p.step for p in places],
            "times": [r.at for r in reports],
        },
    ).all()
    fresh = sorted({str(row.notification_id) for row in rows})
    if fresh:
        store.settle_answered(conn, fresh)
        store.note_wasted(conn, fresh)
