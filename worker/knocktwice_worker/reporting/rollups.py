"""The roll-ups that ``knocktwice stats`` reads: what became of notifications, counted set-based and apart from the work.

Acceptance is cut into slices of five minutes. What happens to a notification, however late, makes its slice *dirty*
(``notifications/store/change_feed.py`` tells), and a dirty slice is counted anew as a whole: the counts replace those from before, in one
transaction. So nothing is ever added twice or forgotten, wherever a worker is killed. A slice is counted less often the
older it gets, and when nothing can happen to it any more its counts join those of their day for good.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import text

from knocktwice_shared.channels import SMS
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content import sms_parts
from knocktwice_worker.database.schema import COUNTS
from knocktwice_worker.lifecycle import OUTCOMES
from knocktwice_worker.limits.quiet_hours import country
from knocktwice_worker.notifications.store import change_feed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Engine, Row, TextClause

FOLLOWER = "rollups"
SLICE = timedelta(minutes=5)
#: When a slice is closed for ever: the longest delay is 30 days, and receipts may be late.
CLOSED_AFTER = timedelta(days=40)
#: Where the counts of closed slices are kept.
CLOSED = datetime(1970, 1, 1, tzinfo=UTC)
#: A dirty slice is counted again when half its age has passed since it was counted last, within these bounds.
SOONEST, LATEST = timedelta(seconds=20), timedelta(hours=1)
#: How much of an old backlog is looked at in one transaction.
_STRIDE = timedelta(hours=6)

_MARK = text(f"""
INSERT INTO rollup_slices (starts_at, dirty)
SELECT DISTINCT date_bin(:slice, c.created_at, :origin), true FROM ({change_feed.CHANGED}) c
WHERE c.created_at >= coalesce((SELECT seen_until FROM followers WHERE name = 'rollups closed'), '-infinity')
ORDER BY 1
ON CONFLICT (starts_at) DO UPDATE SET dirty = true WHERE NOT rollup_slices.dirty
""")

_DUE = text("""
SELECT starts_at, rows FROM rollup_slices
WHERE dirty AND starts_at < :before AND (counted_at IS NULL OR :all OR
  knocktwice_now() - counted_at >= greatest(:soonest, least(:latest, (knocktwice_now() - starts_at) / 2)))
ORDER BY starts_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")

# A text of so few UTF-16 units is one part in either encoding; so are 160 plain characters. Others are counted in Python.
_ONE_PART = r"""
(length(d.text) <= 35 OR length(d.text) <= 160 AND d.text ~ '^[A-Za-z0-9 .,:;!?()/@$%&*+=<>#"''_\r\n-]*$')
"""

_NOT_DUE = ", ".join(f"'{v}'" for v in OUTCOMES if v != "invalid_content")

# Each notification by its keys, so that the cost of a slice does not depend on what else the tables hold.
_COUNT = f"""
SELECT CAST(n.created_at AT TIME ZONE :zone AS date) AS day, coalesce(b.content->>'template', '') AS template,
  coalesce(bl.key, '') AS blast, b.category, number.prefix, min(number.e164) AS sample,
  CASE WHEN n.state = 'suppressed' THEN n.reason END AS why, count(*) AS rows,
  count(*) FILTER (WHERE n.state <> 'duplicate') AS accepted,
  count(*) FILTER (WHERE n.state = 'duplicate') AS duplicates,
  count(*) FILTER (WHERE n.state = 'cancelled') AS cancelled,
  count(*) FILTER (WHERE n.state = 'failed') AS failed,
  count(*) FILTER (WHERE d.pushed) AS pushed,
  count(*) FILTER (WHERE e.delivered) AS delivered,
  count(*) FILTER (WHERE e.clicked) AS clicked,
  count(*) FILTER (WHERE d.fell_back) AS fell_back,
  count(*) FILTER (WHERE e.delivered OR d.arrived) AS reached,
  coalesce(sum(d.sent), 0) AS sms_sent,
  coalesce(sum(d.sms_delivered), 0) AS sms_delivered,
  coalesce(sum(d.sms_undelivered), 0) AS sms_undelivered,
  coalesce(sum(d.sms_unknown), 0) AS sms_unknown,
  coalesce(sum(CASE WHEN e.delivered THEN d.unless_delivered ELSE 0 END
             + CASE WHEN e.clicked THEN d.unless_clicked ELSE 0 END), 0) AS sms_wasted,
  coalesce(sum(d.short), 0) AS short, coalesce(sum(d.short_unpriced), 0) AS short_unpriced,
  coalesce(sum(d.price), 0) AS price, {{totals}}
  jsonb_agg(d.long) FILTER (WHERE d.long IS NOT NULL) AS long
FROM notifications n JOIN batches b ON b.id = n.batch_id
LEFT JOIN blast_pages bp ON bp.id = n.batch_id
LEFT JOIN blasts bl ON bl.id = bp.blast_id
LEFT JOIN phones ph ON ph.user_id = n.user_id
CROSS JOIN LATERAL (
  SELECT bool_or(s.channel = 'push' AND s.state = 'sent') AS pushed,
    bool_or(s.step > 0 AND (s.state IN ('reserved', 'sending', 'sent', 'failed', 'unknown')
      OR s.state = 'skipped' AND s.reason NOT IN ({_NOT_DUE}))) AS fell_back,
    bool_or(s.took AND s.provider_status IS DISTINCT FROM 'undelivered' AND s.provider_status IS DISTINCT FROM 'failed'
      OR s.other AND s.provider_status IN ('delivered', 'read')) AS arrived,
    count(*) FILTER (WHERE s.took) AS sent,
    count(*) FILTER (WHERE s.took AND s.provider_status IN ('delivered', 'read')) AS sms_delivered,
    count(*) FILTER (WHERE s.took AND s.provider_status IN ('undelivered', 'failed')) AS sms_undelivered,
    count(*) FILTER (WHERE s.channel = 'sms' AND s.state = 'unknown') AS sms_unknown,
    {{counts}}
    count(*) FILTER (WHERE s.took AND s.trigger = 'not_delivered') AS unless_delivered,
    count(*) FILTER (WHERE s.took AND s.trigger = 'not_clicked') AS unless_clicked,
    count(*) FILTER (WHERE s.took AND s.one_part) AS short,
    count(*) FILTER (WHERE s.took AND s.one_part AND s.price IS NULL) AS short_unpriced,
    sum(s.price) FILTER (WHERE s.took) AS price,
    jsonb_agg(jsonb_build_array(s.text, s.price IS NULL)) FILTER (WHERE s.took AND NOT s.one_part) AS long,
    max(s.number) FILTER (WHERE s.number LIKE '+%') AS number
  FROM (
    SELECT d.*, d.channel = 'sms' AND d.state = 'sent' AS took,
      d.step > 0 AND d.channel <> 'sms' AND d.state = 'sent' AS other,
      coalesce({_ONE_PART}, true) AS one_part
    FROM deliveries d WHERE d.notification_id = n.id
  ) s
) d
CROSS JOIN LATERAL (
  SELECT bool_or(e.kind IN ('delivered', 'clicked')) AS delivered, bool_or(e.kind = 'clicked') AS clicked
  FROM events e WHERE e.notification_id = n.id AND e.step = 0 AND n.state <> 'duplicate'
) e
CROSS JOIN LATERAL (SELECT coalesce(d.number, n.phone, ph.number) AS e164) f
CROSS JOIN LATERAL (SELECT f.e164, CASE WHEN f.e164 LIKE '+1%' THEN left(f.e164, 5) ELSE left(f.e164, 8) END AS prefix) number
WHERE n.created_at >= :starts_at AND n.created_at < :ends_at
GROUP BY 1, 2, 3, 4, 5, 7
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
def _count(channels: tuple[str, ...]) -> TextClause:
    """Return the query with the counts of some channels beside those of SMS."""
    counts = [
        how.format(mine=f"s.channel = '{channel}'") + f" AS {channel}_{name},"
        for channel in channels
        for name, how in _OF_CHANNEL.items()
    ]
    totals = [f"coalesce(sum(d.{c}_{name}), 0) AS {c}_{name}," for c in channels for name in _OF_CHANNEL]
    return text(_COUNT.format(counts="\n    ".join(counts), totals="\n  ".join(totals)))


_INSERT = text(f"""
INSERT INTO rollups (day, slice, template, blast, country, category, {", ".join(COUNTS)}, price, channels, reached, suppressed)
SELECT r.day, :slice, r.template, r.blast, r.country, r.category, {", ".join(f"r.{name}" for name in COUNTS)},
  r.price, r.channels, r.reached, r.suppressed
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(day date, template text, blast text, country text, category text,
  {", ".join(f"{name} bigint" for name in COUNTS)}, price numeric, channels jsonb, reached bigint, suppressed jsonb)
""")

# Both lines' counts of the other channels, added name by name.
_SUMMED = """
SELECT coalesce(jsonb_object_agg(channel, counts), '{}') FROM (
  SELECT channel, jsonb_object_agg(name, n) AS counts FROM (
    SELECT c.channel, v.name, sum(CAST(v.n AS numeric)) AS n
    FROM (SELECT * FROM jsonb_each(old.channels) UNION ALL SELECT * FROM jsonb_each(excluded.channels)) AS c(channel, counts),
      jsonb_each_text(c.counts) AS v(name, n)
    GROUP BY 1, 2
  ) each_count GROUP BY 1
) each_channel
"""

_CLOSE = text(f"""
WITH gone AS (DELETE FROM rollups WHERE slice > :closed AND slice < :before RETURNING *),
reasons AS (
  SELECT day, template, blast, country, category, jsonb_object_agg(reason, n) AS suppressed FROM (
    SELECT day, template, blast, country, category, reason, sum(CAST(n AS bigint)) AS n
    FROM gone, jsonb_each_text(suppressed) AS s(reason, n) GROUP BY 1, 2, 3, 4, 5, 6
  ) each_reason GROUP BY 1, 2, 3, 4, 5
),
others AS (
  SELECT day, template, blast, country, category, jsonb_object_agg(channel, counts) AS channels FROM (
    SELECT day, template, blast, country, category, channel, jsonb_object_agg(name, n) AS counts FROM (
      SELECT day, template, blast, country, category, c.channel, v.name, sum(CAST(v.n AS numeric)) AS n
      FROM gone, jsonb_each(channels) AS c(channel, counts), jsonb_each_text(c.counts) AS v(name, n)
      GROUP BY 1, 2, 3, 4, 5, 6, 7
    ) each_count GROUP BY 1, 2, 3, 4, 5, 6
  ) each_channel GROUP BY 1, 2, 3, 4, 5
)
INSERT INTO rollups AS old (day, slice, template, blast, country, category, {", ".join(COUNTS)}, price, channels, reached, suppressed)
SELECT g.day, :closed, g.template, g.blast, g.country, g.category, {", ".join(f"sum(g.{name})" for name in COUNTS)},
  sum(g.price),
  coalesce((SELECT o.channels FROM others o WHERE (o.day, o.template, o.blast, o.country, o.category)
    = (g.day, g.template, g.blast, g.country, g.category)), '{{}}'),
  sum(g.reached), coalesce((SELECT r.suppressed FROM reasons r WHERE (r.day, r.template, r.blast, r.country, r.category)
    = (g.day, g.template, g.blast, g.country, g.category)), '{{}}')
FROM gone g GROUP BY g.day, g.template, g.blast, g.country, g.category
ON CONFLICT (day, slice, template, blast, country, category) DO UPDATE SET
  {", ".join(f"{name} = old.{name} + excluded.{name}" for name in (*COUNTS, "price", "reached"))},
  channels = ({_SUMMED}),
  suppressed = (SELECT coalesce(jsonb_object_agg(reason, n), '{{}}') FROM (
    SELECT reason, sum(CAST(n AS bigint)) AS n FROM (
      SELECT * FROM jsonb_each_text(old.suppressed) UNION ALL SELECT * FROM jsonb_each_text(excluded.suppressed)
    ) AS both_of(reason, n) GROUP BY reason) added)
""")


class _Key(NamedTuple):
    """What a line of the roll-ups is about."""

    day: date
    template: str
    blast: str
    country: str
    category: str


@dataclass(slots=True)
class _Line:
    """The counts of one key."""

    counts: Counter[str] = field(default_factory=Counter)
    price: Decimal = Decimal()
    channels: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    suppressed: Counter[str] = field(default_factory=Counter)


def refresh(engine: Engine, zone: str, *, everything: bool = False) -> int:
    """Look for what has changed and count the slices that are due; return how many were counted.

    Any number of workers may call it at any time. Each slice is a transaction of its own.

    Args:
        zone: the IANA time zone whose calendar day counts.
        everything: count all that has changed, however short ago it was counted.
    """
    while _mark(engine):
        pass
    counted = 0
    before = datetime.max.replace(tzinfo=UTC)
    if everything:
        # Each once: what changes while we count is for the next time.
        starts = _dirty(engine)
        for start in starts:
            counted += _recount(engine, zone, before=start + SLICE, everything=True) is not None
        return counted
    while _recount(engine, zone, before=before, everything=False):
        counted += 1
    return counted


def close(engine: Engine, zone: str) -> None:
    """Count slices to which nothing can happen any more a last time, and let their counts join those of their days.

    What is reported about their notifications from now on changes no count, and they may be deleted.
    """
    with engine.begin() as conn:
        change_feed.join(conn, "rollups closed", CLOSED)
        before = conn.execute(
            text("SELECT date_bin(:slice, knocktwice_now() - :after, :origin)"),
            {"slice": SLICE, "after": CLOSED_AFTER, "origin": CLOSED},
        ).scalar_one()
        conn.execute(text("UPDATE rollup_slices SET dirty = true WHERE starts_at < :before"), {"before": before})
    while _recount(engine, zone, before=before, everything=True):
        pass
    with engine.begin() as conn:
        # Whoever marks slices holds this lock, too: what is marked is either counted before or not marked at all.
        conn.execute(text("SELECT FROM followers WHERE name = :name FOR UPDATE"), {"name": FOLLOWER})
        left = text("SELECT 1 FROM rollup_slices WHERE dirty AND starts_at < :before")
        if conn.execute(left, {"before": before}).first():
            return
        change_feed.seen(conn, "rollups closed", before)
        conn.execute(_CLOSE, {"closed": CLOSED, "before": before})
        conn.execute(text("DELETE FROM rollup_slices WHERE starts_at < :before"), {"before": before})


def _mark(engine: Engine) -> bool:
    """Mark the slices in which something has changed; return whether there may be more."""
    with engine.begin() as conn:
        change_feed.join(conn, FOLLOWER)
        span = change_feed.window(conn, FOLLOWER, most=_STRIDE)
        if span is None:
            return False
        conn.execute(_MARK, {"slice": SLICE, "origin": CLOSED, **span._asdict()})
        change_feed.seen(conn, FOLLOWER, span.until)
        return span.until - span.after >= _STRIDE


def _dirty(engine: Engine) -> Sequence[datetime]:
    with engine.connect() as conn:
        return conn.execute(text("SELECT starts_at FROM rollup_slices WHERE dirty ORDER BY 1")).scalars().all()


def _recount(engine: Engine, zone: str, *, before: datetime, everything: bool) -> datetime | None:
    """Count the first slice that is due and return when it starts; ``None`` if none is."""
    with engine.begin() as conn:
        # The lock comes first: whatever marks the slice from now on is newer than what is counted.
        due = conn.execute(_DUE, {"before": before, "all": everything, "soonest": SOONEST, "latest": LATEST}).first()
        if due is None:
            return None
        start: datetime = due.starts_at
        conn.execute(text("SET LOCAL enable_seqscan = off"))
        found = conn.execute(
            _count(tuple(_other_channels())), {"zone": zone, "starts_at": start, "ends_at": start + SLICE}
        ).all()
        rows = sum(row.rows for row in found)
        # Fewer than before: old notifications were deleted meanwhile. What was counted while they were there stays.
        if rows >= due.rows:
            _replace(conn, start, _lines(found))
        conn.execute(
            text(
                "UPDATE rollup_slices SET dirty = false, counted_at = knocktwice_now(), rows = greatest(rows, :rows) "
                "WHERE starts_at = :start"
            ),
            {"rows": rows, "start": start},
        )
        return start


def _lines(found: Iterable[Row[Any]]) -> dict[_Key, _Line]:
    lines: dict[_Key, _Line] = {}
    for row in found:
        key = _Key(row.day, row.template, row.blast, _country(row.sample), row.category)
        line = lines.setdefault(key, _Line())
        line.counts.update({name: int(getattr(row, name)) for name in (*COUNTS, "reached") if "parts" not in name})
        line.counts.update(sms_parts=int(row.short), unpriced_parts=int(row.short_unpriced))
        line.price += row.price
        for channel in _other_channels():
            counts = {name: getattr(row, f"{channel}_{name}") for name in _OF_CHANNEL}
            if any(counts.values()):
                line.channels[channel].update(counts)
        for body, unpriced in (each for several in row.long or () for each in several):
            count = sms_parts.count(body)
            line.counts.update(sms_parts=count, unpriced_parts=count if unpriced else 0)
        if row.why:
            line.suppressed[row.why] += row.accepted
    return lines


def _country(number: str | None) -> str:
    """Return the country of a number; numbers with the same first digits have the same."""
    return (number and country(number)) or ""


def _replace(conn: Connection, start: datetime, lines: dict[_Key, _Line]) -> None:
    conn.execute(text("DELETE FROM rollups WHERE slice = :start"), {"start": start})
    if lines:
        rows = [
            {
                **key._asdict(),
                **{name: line.counts[name] for name in (*COUNTS, "reached")},
                "price": line.price,
                "channels": line.channels,
                "suppressed": line.suppressed,
            }
            for key, line in lines.items()
        ]
        conn.execute(_INSERT, {"slice": start, "rows": json.dumps(rows, default=str)})
