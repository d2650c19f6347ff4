"""Providers' reports about messages that they accepted, kept until they can be written to their deliveries.

Reports come late, twice, out of order, and while a sender still locks its delivery. So a report is first stored
unchanged in ``provider_reports``, where a repeat is the same row, and the provider gets its answer. The report is
written to its delivery as soon as the delivery is not locked. ``provider_statuses.py`` makes every order of reports end
in the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, text

from knocktwice_worker.audience import opt_outs
from knocktwice_worker.audience.untextable import LEARN
from knocktwice_worker.channels.reports import OPTED_OUT, StatusReport
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import LOST, Note, ProviderState
from knocktwice_worker.notifications.store import failed_later, provider_statuses
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.transitions import settle_answered

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta

    from knocktwice_shared.messages import Category

#: The most reports that are written to their deliveries in one transaction.
LIMIT = 1000
_FINAL = [str(state) for state in ProviderState if state is not ProviderState.SENT]


# A report with more facts than the stored one, such as the price, completes it. The sorted order prevents a deadlock
# between transactions with the same reports.
_KEEP = text(f"""
INSERT INTO provider_reports AS p (
  provider,
  provider_id,
  status,
  notification_id,
  step,
  error,
  error_text,
  untextable,
  operators,
  price,
  price_unit,
  at
)
SELECT * FROM {
    rows(
        "r",
        provider="text",
        provider_id="text",
        status="text",
        id="uuid",
        step="smallint",
        error="int",
        error_text="text",
        untextable="text",
        operators="text",
        price="numeric",
        price_unit="text",
        at="timestamptz",
    )
}
ORDER BY 2, 3
ON CONFLICT (provider_id, status) DO UPDATE SET
  notification_id = coalesce(p.notification_id, excluded.notification_id),
  step = coalesce(p.step, excluded.step),
  error = coalesce(p.error, excluded.error),
  error_text = coalesce(p.error_text, excluded.error_text),
  untextable = coalesce(p.untextable, excluded.untextable),
  operators = coalesce(p.operators, excluded.operators),
  price = coalesce(p.price, excluded.price),
  price_unit = coalesce(p.price_unit, excluded.price_unit)
""")


def accept(conn: Connection, reports: Sequence[StatusReport]) -> None:
    """Store reports until they are written to their deliveries. Repeats change nothing.

    The number of queries does not depend on the number of reports.
    """
    kept: dict[tuple[str, str], StatusReport] = {}
    for report in reports:
        key = (report.provider_id, str(report.status))
        # Of two equal reports in one transaction, keep the one with a price.
        if key not in kept or kept[key].price is None:
            kept[key] = report
    if kept:
        conn.execute(
            _KEEP,
            {
                "provider": [r.provider for r in kept.values()],
                "provider_id": [r.provider_id for r in kept.values()],
                "status": [str(r.status) for r in kept.values()],
                "id": [r.intent[0] if r.intent else None for r in kept.values()],
                "step": [r.intent[1] if r.intent else None for r in kept.values()],
                "error": [r.error for r in kept.values()],
                "error_text": [r.error_text for r in kept.values()],
                "untextable": [r.untextable and str(r.untextable) for r in kept.values()],
                "operators": [r.operators for r in kept.values()],
                "price": [r.price for r in kept.values()],
                "price_unit": [r.price_unit for r in kept.values()],
                "at": [r.at for r in kept.values()],
            },
        )


# Two transactions may take the same reports; the second one skips the locked rows.
_TAKE = text("""
SELECT * FROM provider_reports WHERE provider_id = ANY(:ids) ORDER BY provider_id, status FOR UPDATE SKIP LOCKED
""")

# Some reports cannot be written now: their delivery is locked, or is not ours. The random order keeps them from
# blocking the others.
_TAKE_WAITING = text("""
SELECT * FROM provider_reports ORDER BY random() LIMIT :limit FOR UPDATE SKIP LOCKED
""")

# Delete only the written reports, so that reports which came in the meantime stay.
_TAKEN = text(f"""
DELETE FROM provider_reports p USING {rows("r", id="text", status="text")}
WHERE p.provider_id = r.id AND p.status = r.status
""")


def bring(conn: Connection, provider_ids: Collection[str] | None = None) -> int:
    """Write stored reports to their deliveries, except those whose delivery is locked.

    Args:
        provider_ids: only reports about these messages; ``None``: about any message, up to :data:`LIMIT` reports.

    Returns:
        The number of reports that could not be written. They wait for the next call; reports about messages that are
        not ours are deleted after two days.
    """
    waiting, _ = _bring(conn, provider_ids)
    return waiting


def bring_and_take_up(
    engine: Engine, provider_ids: Collection[str] | None, useless_after: Mapping[Category, timedelta]
) -> int:
    """Do the same as :func:`bring`, and let messages be sent again that failed for what the operator must mend.

    Args:
        provider_ids: as of :func:`bring`.
        useless_after: how long after it was due a message may still go, by category.
    """
    again: list[str] = []
    with engine.begin() as conn:
        waiting, failed = _bring(conn, provider_ids)
        if failed:
            again = failed_later.take_up(conn, failed, useless_after)
    if again:
        # A cancellation or a click may have been committed meanwhile, and found the message sent.
        with engine.begin() as conn:
            settle_answered(conn, again)
    return waiting


def _bring(conn: Connection, provider_ids: Collection[str] | None) -> tuple[int, Sequence[Row[Any]]]:
    """Write stored reports; return how many could not be written, and which of the others say what must be mended."""
    if provider_ids is None:
        waiting = conn.execute(_TAKE_WAITING, {"limit": LIMIT}).all()
    else:
        waiting = conn.execute(_TAKE, {"ids": sorted(provider_ids)}).all()
    if not waiting:
        return 0, ()
    unknown = provider_statuses.record(conn, [_report(row) for row in waiting])
    ours = [row for row in waiting if row.provider_id not in unknown]
    if ours:
        _annotate(conn, ours)
        taken = {"id": [r.provider_id for r in ours], "status": [r.status for r in ours]}
        conn.execute(_TAKEN, taken)
    return len(waiting) - len(ours), [row for row in ours if row.operators is not None]


# The oldest first, because a run asks only for a limited number of them.
_UNREPORTED = text("""
SELECT provider_id, provider FROM deliveries
WHERE step > 0 AND state = 'sent' AND reported_at IS NULL AND provider_id IS NOT NULL
  AND finished_at <= knocktwice_now() - :age
ORDER BY finished_at LIMIT :limit
""")


def unreported(conn: Connection, *, age: timedelta, limit: int) -> dict[str, str | None]:
    """Return the ids of messages sent at least ``age`` ago without a final report, with their providers."""
    return {row.provider_id: row.provider for row in conn.execute(_UNREPORTED, {"age": age, "limit": limit})}


# A report may have come after the list was read; such a message is left out.
_CLOSE = text("""
UPDATE deliveries SET reported_at = knocktwice_now()
WHERE step > 0 AND state = 'sent' AND reported_at IS NULL AND finished_at <= knocktwice_now() - :wait
  AND provider_id = ANY(:ids)
RETURNING notification_id, step
""")


def close(conn: Connection, wait: timedelta, provider_ids: Collection[str]) -> int:
    """Stop waiting for reports about messages that were sent more than ``wait`` ago: their arrival is unknown.

    A report that comes later is still written.
    """
    closed = conn.execute(_CLOSE, {"wait": wait, "ids": list(provider_ids)}).all()
    write_ledger(conn, [_line(row, Note.DELIVERY_UNKNOWN, {"waited": str(wait)}) for row in closed])
    return len(closed)


# Reports about messages that are not ours.
_FORGET = text("DELETE FROM provider_reports WHERE received_at < knocktwice_now() - interval '2 days'")


def forget(conn: Connection) -> int:
    """Delete reports about messages that are not ours, and return how many."""
    return conn.execute(_FORGET).rowcount


def _report(row: Row[Any]) -> StatusReport:
    intent = None if row.notification_id is None else (str(row.notification_id), int(row.step))
    return StatusReport(
        row.provider,
        row.provider_id,
        ProviderState(row.status),
        row.at,
        row.error,
        intent,
        error_text=row.error_text,
    )


# The status is already written by ``provider_statuses.py``. A new final status gets a line in the ledger. What it says
# of the number is learned in the same statement: a number that messages do not reach is remembered, one that a message
# has reached is forgotten.
_ANNOTATE = text(f"""
WITH annotated AS (
UPDATE deliveries d SET
  price = coalesce(r.price, d.price),
  price_unit = coalesce(r.unit, d.price_unit),
  heard_at = knocktwice_now(),
  reported_at = CASE WHEN d.provider_status = ANY(:final) THEN d.provider_status_at ELSE d.reported_at END
FROM deliveries o
JOIN {rows("r", id="text", price="numeric", unit="text", untextable="text")} ON r.id = o.provider_id
WHERE o.step > 0 AND d.notification_id = o.notification_id AND d.step = o.step
RETURNING
  d.notification_id,
  d.step,
  d.number,
  d.channel,
  d.claimed_at,
  d.provider_status,
  d.provider_error,
  d.provider_error_text,
  d.price,
  d.price_unit,
  d.reported_at IS DISTINCT FROM o.reported_at AS news,
  r.untextable
), failed AS (
  SELECT number, channel, untextable AS reason
  FROM annotated
  WHERE news AND provider_status = ANY(:lost)
), learned AS (
  {LEARN.format(source="failed")}
), forgotten AS (
  DELETE FROM untextable u
  USING annotated a
  WHERE u.number = a.number AND u.channel = a.channel AND a.provider_status = ANY(:arrived)
)
SELECT * FROM annotated
""")

# A person who has asked for texts again (START) after this message was sent does not become an opt-out.
_STAY_OUT = text(f"""
SELECT DISTINCT r.number FROM {rows("r", number="text", at="timestamptz")}
WHERE NOT EXISTS (
  SELECT FROM inbound_texts i WHERE i.number = r.number AND i.wish = 'START' AND i.received_at > r.at)
""")


def _annotate(conn: Connection, reports: Sequence[Row[Any]]) -> None:
    prices = {r.provider_id: (None, None) for r in reports}
    prices |= {r.provider_id: (r.price, r.price_unit) for r in reports if r.price is not None}
    reasons = {r.provider_id: r.untextable for r in reports if r.untextable is not None}
    found = conn.execute(
        _ANNOTATE,
        {
            "id": list(prices),
            "price": [price for price, _ in prices.values()],
            "unit": [unit for _, unit in prices.values()],
            "untextable": [reasons.get(id_) for id_ in prices],
            "final": _FINAL,
            "lost": [str(state) for state in LOST],
            "arrived": [str(ProviderState.DELIVERED), str(ProviderState.READ)],
        },
    ).all()
    news = [row for row in found if row.news]
    write_ledger(conn, [_line(row, Note.DELIVERY_REPORT, _inputs(row)) for row in news])
    opted_out = [row for row in news if row.provider_error == OPTED_OUT and row.number is not None]
    if opted_out:
        sent = {"number": [row.number for row in opted_out], "at": [row.claimed_at for row in opted_out]}
        opt_outs.add(conn, [row.number for row in conn.execute(_STAY_OUT, sent)], "provider")


def _inputs(row: Row[Any]) -> dict[str, object]:
    price = None if row.price is None else f"{row.price} {row.price_unit or ''}".strip()
    inputs = {"status": row.provider_status, "error": row.provider_error_text or row.provider_error, "price": price}
    return {name: value for name, value in inputs.items() if value is not None}


def _line(row: Row[Any], note: Note, inputs: dict[str, object]) -> Decision:
    return Decision(str(row.notification_id), note, inputs, row.step)
