"""The counts of a slice: the outcomes of its notifications, counted from their rows in one query."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import text

from knocktwice_shared.channels import SMS
from knocktwice_shared.messages import When
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content import media
from knocktwice_worker.database import planner
from knocktwice_worker.database.schema.figures import COUNTS
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.lifecycle import OUTCOMES, TRIGGERS, Evidence
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.notifications.store.trigger_sql import FOLLOW_UPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from sqlalchemy import Connection, Row, TextClause


class Key(NamedTuple):
    """The key of a line of the roll-ups."""

    day: date
    template: str
    blast: str
    country: str
    category: str
    project: str


@dataclass(slots=True)
class Line:
    """The counts of one key."""

    counts: Counter[str] = field(default_factory=Counter)
    price: Decimal = Decimal()
    channels: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    suppressed: Counter[str] = field(default_factory=Counter)


# A text of so few UTF-16 units is one part in either encoding; so are 160 plain characters. Others are counted in
# Python, and so are messages with media, which begin with the character 30 (content/media.py).
_ONE_PART = r"""
(length(d.text) <= 35 AND ascii(d.text) <> 30 OR length(d.text) <= 160 AND d.text ~ '^[A-Za-z0-9 .,:;!?()/@$%&*+=<>#"''_\r\n-]*$')
"""

# For each trigger that evidence answers: its SMS that were taken, and whether the evidence about the push has come.
_ANSWERABLE = [when for when in When if TRIGGERS[when].answered_by]
_TAKEN = "\n    ".join(
    f"count(*) FILTER (WHERE s.took AND s.trigger = '{when}') AS took_{when}," for when in _ANSWERABLE
)
#: No provider reports of a push that it was read.
_NEEDLESS = " + ".join(
    f"CASE WHEN {' OR '.join(f'e.{one}' for one in sorted(TRIGGERS[when].answered_by - {Evidence.READ}))}"
    f" THEN d.took_{when} ELSE 0 END"
    for when in _ANSWERABLE
)

_NOT_DUE = ", ".join(f"'{v}'" for v in OUTCOMES if v != "invalid_content")

# Tests are not counted. Each notification by its keys, so that the cost of a slice does not depend on what else the
# tables hold. One row for all notifications that are alike in what the roll-ups tell apart; the country follows from
# the first digits of the number.
_COUNT = f"""
SELECT
  CAST(n.created_at AT TIME ZONE :zone AS date) AS day,
  coalesce(b.content->>'template', '') AS template,
  coalesce(bl.key, '') AS blast,
  b.category,
  coalesce(n.project, '') AS project,
  number.prefix,
  min(number.e164) AS sample,
  CASE WHEN n.state = 'suppressed' THEN n.reason END AS why,
  count(*) AS rows,
  count(*) FILTER (WHERE n.state <> 'duplicate') AS accepted,
  count(*) FILTER (WHERE n.state = 'duplicate') AS duplicates,
  count(*) FILTER (WHERE n.state = 'cancelled') AS cancelled,
  count(*) FILTER (WHERE n.state = 'failed') AS failed,
  count(*) FILTER (WHERE d.pushed) AS pushed,
  count(*) FILTER (WHERE e.delivered) AS delivered,
  count(*) FILTER (WHERE e.clicked) AS clicked,
  count(*) FILTER (WHERE e.wrote_back) AS replied,
  count(*) FILTER (WHERE e.clicked OR e.seen OR e.wrote_back) AS responded,
  count(*) FILTER (WHERE d.fell_back) AS fell_back,
  count(*) FILTER (WHERE d.alone) AS alone,
  count(*) FILTER (WHERE e.delivered OR e.seen OR d.arrived) AS reached,
  coalesce(sum(d.sent), 0) AS sms_sent,
  coalesce(sum(d.sms_delivered), 0) AS sms_delivered,
  coalesce(sum(d.sms_undelivered), 0) AS sms_undelivered,
  coalesce(sum(d.sms_unknown), 0) AS sms_unknown,
  coalesce(sum({_NEEDLESS}), 0) AS sms_wasted,
  coalesce(sum(d.short), 0) AS short,
  coalesce(sum(d.short_unpriced), 0) AS short_unpriced,
  coalesce(sum(d.price), 0) AS price,
  {{totals}}
  jsonb_agg(d.long) FILTER (WHERE d.long IS NOT NULL) AS long
FROM notifications n
JOIN batches b ON b.id = n.batch_id
LEFT JOIN blast_pages bp ON bp.id = n.batch_id
LEFT JOIN blasts bl ON bl.id = bp.blast_id
LEFT JOIN phones ph ON ph.user_id = n.user_id
CROSS JOIN LATERAL (
  SELECT
    bool_or(s.channel = 'push' AND s.state = 'sent') AS pushed,
    bool_or(s.step = 1 AND s.trigger IS NULL AND s.steps_left = 0) AS alone,
    bool_or(s.step > 0 AND s.trigger NOT IN {FOLLOW_UPS} AND (
      s.state IN ('reserved', 'sending', 'sent', 'failed', 'unknown')
      OR s.state = 'skipped' AND s.reason NOT IN ({_NOT_DUE})
    )) AS fell_back,
    bool_or(
      s.took
        AND s.provider_status IS DISTINCT FROM 'undelivered'
        AND s.provider_status IS DISTINCT FROM 'failed'
      OR s.other AND s.provider_status IN ('delivered', 'read')
    ) AS arrived,
    count(*) FILTER (WHERE s.took) AS sent,
    count(*) FILTER (WHERE s.took AND s.provider_status IN ('delivered', 'read')) AS sms_delivered,
    count(*) FILTER (WHERE s.took AND s.provider_status IN ('undelivered', 'failed')) AS sms_undelivered,
    count(*) FILTER (WHERE s.channel = 'sms' AND s.state = 'unknown') AS sms_unknown,
    {{counts}}
    {_TAKEN}
    count(*) FILTER (WHERE s.took AND s.one_part) AS short,
    count(*) FILTER (WHERE s.took AND s.one_part AND s.price IS NULL) AS short_unpriced,
    sum(s.price) FILTER (WHERE s.took) AS price,
    jsonb_agg(jsonb_build_array(s.text, s.price IS NULL)) FILTER (WHERE s.took AND NOT s.one_part) AS long,
    max(s.number) FILTER (WHERE s.number LIKE '+%') AS number
  FROM (
    SELECT
      d.*,
      d.channel = 'sms' AND d.state = 'sent' AS took,
      d.step > 0 AND d.channel <> 'sms' AND d.state = 'sent' AS other,
      coalesce({_ONE_PART}, true) AS one_part
    FROM deliveries d
    WHERE d.notification_id = n.id
  ) s
) d
CROSS JOIN LATERAL (
  SELECT
    bool_or(e.step = 0 AND e.kind IN ('delivered', 'clicked')) AS delivered,
    bool_or(e.step = 0 AND e.kind = 'clicked') AS clicked,
    bool_or(e.step = 0 AND e.kind = 'seen') AS seen,
    bool_or(e.step = 0 AND e.kind = 'replied') AS replied,
    bool_or(e.kind = 'replied') AS wrote_back
  FROM events e
  WHERE e.notification_id = n.id AND n.state <> 'duplicate'
) e
CROSS JOIN LATERAL (SELECT coalesce(d.number, n.phone, ph.number) AS e164) f
CROSS JOIN LATERAL (
  SELECT
    f.e164,
    CASE WHEN f.e164 LIKE '+1%' THEN left(f.e164, 5) ELSE left(f.e164, 8) END AS prefix
) number
WHERE n.created_at >= :starts_at AND n.created_at < :ends_at AND NOT {is_test("n.project")}
GROUP BY 1, 2, 3, 4, 5, 6, 8
"""

#: What is counted of each channel but SMS, and how: of its messages ``s.m`` that its providers took.
_OF_CHANNEL = {
    "sent": "count(*) FILTER (WHERE {mine} AND s.other)",
    "delivered": "count(*) FILTER (WHERE {mine} AND s.other AND s.provider_status IN ('delivered', 'read'))",
    "read": "count(*) FILTER (WHERE {mine} AND s.other AND s.provider_status = 'read')",
    "unknown": "count(*) FILTER (WHERE {mine} AND s.state = 'unknown')",
    "unpriced": "count(*) FILTER (WHERE {mine} AND s.other AND s.price IS NULL"
    " AND s.provider_status IS DISTINCT FROM 'undelivered' AND s.provider_status IS DISTINCT FROM 'failed')",
    "price": "sum(s.price) FILTER (WHERE {mine} AND s.other)",
}


def _other_channels() -> list[str]:
    return [name for name in CHANNELS if name != SMS]


@cache
def _query(channels: tuple[str, ...]) -> TextClause:
    """Return the query with the counts of some channels beside those of SMS."""
    counts = [
        how.format(mine=f"s.channel = '{channel}'") + f" AS {channel}_{name},"
        for channel in channels
        for name, how in _OF_CHANNEL.items()
    ]
    totals = [f"coalesce(sum(d.{c}_{name}), 0) AS {c}_{name}," for c in channels for name in _OF_CHANNEL]
    return text(_COUNT.format(counts="\n    ".join(counts), totals="\n  ".join(totals)))


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """The counts of a slice.

    Attributes:
        rows: notifications that are there.
        lines: what became of them.
    """

    rows: int
    lines: Mapping[Key, Line]


def count(conn: Connection, starts_at: datetime, ends_at: datetime, zone: str) -> SliceCounts:
    """Count the notifications that were accepted in a span of time.

    Args:
        zone: the IANA time zone whose calendar day counts.
    """
    # The planner would rather read whole tables than believe that a slice is so small a part of them.
    planner.by_index(conn)
    query = _query(tuple(_other_channels()))
    asked = {"zone": zone, "starts_at": starts_at, "ends_at": ends_at}
    found = conn.execute(query, asked).all()
    return SliceCounts(sum(row.rows for row in found), _lines(found))


def _lines(found: Iterable[Row[Any]]) -> dict[Key, Line]:
    lines: dict[Key, Line] = {}
    for row in found:
        key = Key(row.day, row.template, row.blast, _country(row.sample), row.category, row.project)
        line = lines.setdefault(key, Line())
        line.counts.update({name: int(getattr(row, name)) for name in (*COUNTS, "reached") if "parts" not in name})
        line.counts.update(sms_parts=int(row.short), unpriced_parts=int(row.short_unpriced))
        line.price += row.price
        for channel in _other_channels():
            counts = {name: getattr(row, f"{channel}_{name}") for name in _OF_CHANNEL}
            if any(counts.values()):
                line.channels[channel].update(counts)
        for body, unpriced in (each for several in row.long or () for each in several):
            count = media.parts(body)
            line.counts.update(sms_parts=count, unpriced_parts=count if unpriced else 0)
        if row.why:
            line.suppressed[row.why] += row.accepted
    return lines


def _country(number: str | None) -> str:
    """Return the country of a number; numbers with the same first digits have the same."""
    return (number and country(number)) or ""
