"""Writes providers' reports to their deliveries. Repeats and the order of the reports do not matter.

The strongest report about a message is kept (:class:`~knocktwice_worker.lifecycle.ProviderState`), so every order ends
in the same rows. ``delivered`` and ``read`` become receipts of their step and end later steps like a receipt of the
app. If a message will not arrive, the step after it becomes due at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, text

from knocktwice_shared.messages import Receipt
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import LOST, DeliveryState, ProviderState
from knocktwice_worker.notifications.store.receipts import Event, insert_events, note_wasted
from knocktwice_worker.notifications.store.step_results import StepResult, record_steps
from knocktwice_worker.notifications.store.transitions import lock_open, settle_answered
from knocktwice_worker.notifications.store.unresolved import take_back

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from knocktwice_worker.channels.reports import StatusReport

_ORDER = list(ProviderState)
_RECEIPTS = {ProviderState.DELIVERED: Receipt.DELIVERED, ProviderState.READ: Receipt.CLICKED}


class _Place(NamedTuple):
    """The key of a delivery: its notification and its step."""

    notification_id: str
    step: int


def record(conn: Connection, reports: Sequence[StatusReport]) -> set[str]:
    """Write reports, end the steps that they make unnecessary, and make steps due whose wait is over.

    Repeats, old reports and any order are harmless. The number of queries does not depend on the number of reports.

    Returns:
        The provider ids whose reports could not be written: the message is unknown here, or a sender has locked its
        delivery. Call again with them some seconds later, for a while; messages that are not ours stay unknown for
        ever.
    """
    if not reports:
        return set()
    providers = {report.provider_id: report.provider for report in reports}
    locked = _lock(conn, _places(conn, reports), providers)
    known = {row.provider_id: _Place(str(row.notification_id), row.step) for row in locked}
    past = _past(conn, locked, {r.provider_id for r in reports if r.status in _RECEIPTS})
    _adopt(conn, [row for row in locked if row.provider_id not in past])
    strongest: dict[str, StatusReport] = {}
    for report in reports:
        if report.provider_id in known and report.provider_id not in past:
            so_far = strongest.setdefault(report.provider_id, report)
            if _ORDER.index(report.status) > _ORDER.index(so_far.status):
                strongest[report.provider_id] = report
    _write(conn, strongest, known)
    _receive(conn, [r for r in reports if r.provider_id in known and r.status in _RECEIPTS], known)
    return {r.provider_id for r in reports} - set(known)


# The provider's id of a message is written when the provider's answer is recorded.
_FIND = text("""
SELECT notification_id, step, provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0
UNION ALL
SELECT d.notification_id, d.step, lost.id
FROM deliveries d
CROSS JOIN LATERAL unnest(d.lost_ids) AS lost(id)
WHERE d.lost_ids && CAST(:ids AS text[]) AND lost.id = ANY(:ids)
""")


def _places(conn: Connection, reports: Iterable[StatusReport]) -> dict[str, _Place]:
    places = {r.provider_id: _Place(*r.intent) for r in reports if r.intent is not None}
    found = conn.execute(_FIND, {"ids": sorted({r.provider_id for r in reports})})
    # Our own record of a message has priority over the intent in a report.
    return places | {row.provider_id: _Place(str(row.notification_id), row.step) for row in found}


# Skip the deliveries that a sender has locked for its provider call; waiting for one would delay all others. A delivery
# without a provider's id matches only the provider that was chosen for it.
_LOCK = text(f"""
SELECT
  d.notification_id,
  d.step,
  d.state,
  r.provider_id,
  coalesce(r.provider_id = ANY(d.lost_ids), false) AS lost
FROM {rows("r", id="uuid", step="smallint", provider_id="text", provider="text")}
JOIN deliveries d ON d.notification_id = r.id AND d.step = r.step
WHERE d.step > 0 AND (d.provider_id = r.provider_id OR r.provider_id = ANY(d.lost_ids)
  OR (d.provider_id IS NULL AND d.claimed_at IS NOT NULL AND d.provider = r.provider))
ORDER BY d.notification_id, d.step FOR UPDATE OF d SKIP LOCKED
""")


def _lock(conn: Connection, places: Mapping[str, _Place], providers: Mapping[str, str]) -> Sequence[Row[Any]]:
    wanted = {
        "id": [p.notification_id for p in places.values()],
        "step": [p.step for p in places.values()],
        "provider_id": list(places),
        "provider": [providers[provider_id] for provider_id in places],
    }
    found = conn.execute(_LOCK, wanted).all()
    # After a repeated send, two messages may claim one delivery. The first one gets it.
    return list({(row.notification_id, row.step): row for row in reversed(found)}.values())


# The message is found again, so it is not lost any more.
_FOUND_AGAIN = text(f"""
UPDATE deliveries d SET lost_ids = array_remove(d.lost_ids, r.provider_id)
FROM {rows("r", id="uuid", step="smallint", provider_id="text")}
WHERE d.notification_id = r.id AND d.step = r.step
""")


def _past(conn: Connection, locked: Sequence[Row[Any]], arrived: Collection[str]) -> set[str]:
    """Return the messages that their provider has failed, so that their steps were taken up again.

    What else is reported about them changes no step, with one exception: a message that has arrived after all, and was
    not sent again yet, is recorded as sent, so that its recipient gets no second one.

    Args:
        arrived: the messages of which it is reported that they have arrived.
    """
    lost = [row for row in locked if row.lost]
    found = [row for row in lost if row.provider_id in arrived and row.state == DeliveryState.RESERVED]
    if found:
        conn.execute(
            _FOUND_AGAIN,
            {
                "id": [row.notification_id for row in found],
                "step": [row.step for row in found],
                "provider_id": [row.provider_id for row in found],
            },
        )
    return {row.provider_id for row in lost} - {row.provider_id for row in found}


def _adopt(conn: Connection, locked: Sequence[Row[Any]]) -> None:
    """Record messages as sent that the provider reports about, although no sender could record its answer."""
    lost = [row for row in locked if row.state in (DeliveryState.SENDING, DeliveryState.RESERVED)]
    if not lost:
        return
    take_back(conn, [str(row.notification_id) for row in lost], [row.step for row in lost])
    record_steps(
        conn,
        [
            StepResult(
                str(row.notification_id),
                DeliveryState.SENT,
                provider_id=row.provider_id,
                reason="the provider called back about it",
            )
            for row in lost
        ],
    )


# Only a stronger report replaces the existing one.
_RECORD = text(f"""
UPDATE deliveries d SET
  provider_status = r.status,
  provider_error = r.error,
  provider_error_text = r.error_text,
  provider_status_at = r.at,
  provider_id = coalesce(d.provider_id, r.provider_id),
  heard_at = knocktwice_now()
FROM {
    rows(
        "r",
        id="uuid",
        step="smallint",
        provider_id="text",
        status="text",
        error="int",
        error_text="text",
        at="timestamptz",
    )
}
WHERE d.notification_id = r.id AND d.step = r.step
  AND coalesce(array_position(CAST(:order AS text[]), d.provider_status), 0)
      < array_position(CAST(:order AS text[]), r.status)
RETURNING
  d.notification_id,
  d.step,
  d.provider_status
""")

# The next step becomes due at once, because no receipt of a lost message can come.
_NEXT_NOW = text(f"""
UPDATE deliveries d SET
  due_at = knocktwice_now(),
  wake_at = knocktwice_now()
FROM {rows("r", id="uuid", step="smallint")}
WHERE d.notification_id = r.id AND d.step > r.step AND d.after_step = r.step AND d.state = 'scheduled'
  AND d.due_at > knocktwice_now()
""")


def _write(conn: Connection, strongest: Mapping[str, StatusReport], known: Mapping[str, _Place]) -> None:
    # Sorted in the order of the locks, to prevent deadlocks.
    reports = sorted(strongest.values(), key=lambda r: known[r.provider_id])
    places = [known[r.provider_id] for r in reports]
    found = conn.execute(
        _RECORD,
        {
            "id": [p.notification_id for p in places],
            "step": [p.step for p in places],
            "provider_id": [r.provider_id for r in reports],
            "status": [str(r.status) for r in reports],
            "error": [r.error for r in reports],
            "error_text": [r.error_text for r in reports],
            "at": [r.at for r in reports],
            "order": [str(s) for s in _ORDER],
        },
    ).all()
    lost = [row for row in found if row.provider_status in LOST]
    if lost:
        # Lock order: receipts lock the open steps of notifications by id, so this transaction first locks all that it
        # may change in the same order.
        lock_open(conn, sorted({place.notification_id for place in known.values()}))
        conn.execute(_NEXT_NOW, {"id": [r.notification_id for r in lost], "step": [r.step for r in lost]})


def _receive(conn: Connection, reports: Sequence[StatusReport], known: Mapping[str, _Place]) -> None:
    if not reports:
        return
    events = [
        Event(place.notification_id, str(_RECEIPTS[r.status]), r.provider_id, r.at, place.step)
        for r in reports
        for place in (known[r.provider_id],)
    ]
    if fresh := insert_events(conn, events):
        settle_answered(conn, fresh)
        note_wasted(conn, fresh)
