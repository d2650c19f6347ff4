"""The roll-ups for ``knocktwice stats``: outcomes of notifications, counted set-based and apart from the work.

Acceptance is cut into slices of five minutes. A change of a notification, however late, makes its slice *dirty* (found
by ``notifications/store/change_feed.py``). A dirty slice is counted anew as a whole (``slice_counts.py``), and the
counts replace those from before in one transaction. So nothing is ever added twice or forgotten, wherever a worker is
killed. The older a slice, the less often it is counted. When nothing can happen to it any more its counts join those of
their day for good.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.database.schema.figures import COUNTS
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.reporting import slice_counts
from knocktwice_worker.reporting.closing import CLOSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.reporting.slice_counts import Key, Line

FOLLOWER = "rollups"
SLICE = timedelta(minutes=5)
#: When a slice is closed for ever: the longest delay is 30 days, and receipts may be late.
CLOSED_AFTER = timedelta(days=40)
#: The slice that stands for all closed slices together.
CLOSED = datetime(1970, 1, 1, tzinfo=UTC)
#: A dirty slice is counted again when half its age has passed since it was counted last, within these bounds.
SOONEST, LATEST = timedelta(seconds=20), timedelta(hours=1)
#: The longest span of an old backlog that is read in one transaction.
_STRIDE = timedelta(hours=6)


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


_CLOSED_BEFORE = text("SELECT date_bin(:slice, knocktwice_now() - :after, :origin)")
_MARK_OLD = text("UPDATE rollup_slices SET dirty = true WHERE starts_at < :before")
_LEFT = text("SELECT 1 FROM rollup_slices WHERE dirty AND starts_at < :before")
_FORGET = text("DELETE FROM rollup_slices WHERE starts_at < :before")
# The lock of everybody who marks slices.
_PLACE = text("SELECT FROM followers WHERE name = :name FOR UPDATE")


def close(engine: Engine, zone: str) -> None:
    """Count slices to which nothing can happen any more a last time, and let their counts join those of their days.

    What is reported about their notifications from now on changes no count, and they may be deleted.
    """
    with engine.begin() as conn:
        change_feed.join(conn, "rollups closed", CLOSED)
        span = {"slice": SLICE, "after": CLOSED_AFTER, "origin": CLOSED}
        before: datetime = conn.execute(_CLOSED_BEFORE, span).scalar_one()
        conn.execute(_MARK_OLD, {"before": before})
    while _recount(engine, zone, before=before, everything=True):
        pass
    with engine.begin() as conn:
        # The follower that marks slices holds this lock, too: a change is either counted before, or marks no slice.
        conn.execute(_PLACE, {"name": FOLLOWER})
        if conn.execute(_LEFT, {"before": before}).first():
            return
        change_feed.seen(conn, "rollups closed", before)
        conn.execute(CLOSE, {"closed": CLOSED, "before": before})
        conn.execute(_FORGET, {"before": before})


# A slice that is closed for ever is not marked.
_MARK = text(f"""
INSERT INTO rollup_slices (starts_at, dirty)
SELECT DISTINCT
  date_bin(:slice, c.created_at, :origin),
  true
FROM ({change_feed.CHANGED}) c
WHERE c.created_at >= coalesce((SELECT seen_until FROM followers WHERE name = 'rollups closed'), '-infinity')
ORDER BY 1
ON CONFLICT (starts_at) DO UPDATE SET
  dirty = true
WHERE NOT rollup_slices.dirty
""")


def _mark(engine: Engine) -> bool:
    """Mark the slices in which something has changed; return whether there may be more."""
    with engine.begin() as conn:
        change_feed.join(conn, FOLLOWER)
        span = change_feed.window(conn, FOLLOWER, most=_STRIDE)
        if span is None:
            return False
        times = {"after": span.after, "until": span.until}
        conn.execute(_MARK, {"slice": SLICE, "origin": CLOSED, **times})
        change_feed.seen(conn, FOLLOWER, span.until)
        return span.until - span.after >= _STRIDE


def _dirty(engine: Engine) -> Sequence[datetime]:
    with engine.connect() as conn:
        return conn.execute(text("SELECT starts_at FROM rollup_slices WHERE dirty ORDER BY 1")).scalars().all()


_DUE = text("""
SELECT
  starts_at,
  rows
FROM rollup_slices
WHERE dirty
  AND starts_at < :before
  AND (
    counted_at IS NULL
    OR :all
    OR knocktwice_now() - counted_at >= greatest(:soonest, least(:latest, (knocktwice_now() - starts_at) / 2))
  )
ORDER BY starts_at
LIMIT 1
FOR UPDATE SKIP LOCKED
""")

_COUNTED = text("""
UPDATE rollup_slices SET
  dirty = false,
  counted_at = knocktwice_now(),
  rows = greatest(rows, :rows)
WHERE starts_at = :start
""")


def _recount(engine: Engine, zone: str, *, before: datetime, everything: bool) -> datetime | None:
    """Count the first slice that is due and return when it starts; ``None`` if none is."""
    with engine.begin() as conn:
        # The lock comes first: whatever marks the slice from now on is newer than what is counted.
        due = conn.execute(_DUE, {"before": before, "all": everything, "soonest": SOONEST, "latest": LATEST}).first()
        if due is None:
            return None
        start: datetime = due.starts_at
        found = slice_counts.count(conn, start, start + SLICE, zone)
        # Fewer than before: old notifications were deleted meanwhile. What was counted while they were there stays.
        if found.rows >= due.rows:
            _replace(conn, start, found.lines)
        conn.execute(_COUNTED, {"rows": found.rows, "start": start})
        return start


_REMOVE = text("DELETE FROM rollups WHERE slice = :start")

_INSERT = text(f"""
INSERT INTO rollups (
  day,
  slice,
  template,
  blast,
  country,
  category,
  project,
  {", ".join(COUNTS)},
  price,
  channels,
  reached,
  suppressed
)
SELECT
  r.day,
  :slice,
  r.template,
  r.blast,
  r.country,
  r.category,
  r.project,
  {", ".join(f"r.{name}" for name in COUNTS)},
  r.price,
  r.channels,
  r.reached,
  r.suppressed
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
  day date,
  template text,
  blast text,
  country text,
  category text,
  project text,
  {", ".join(f"{name} bigint" for name in COUNTS)},
  price numeric,
  channels jsonb,
  reached bigint,
  suppressed jsonb
)
""")


def _replace(conn: Connection, start: datetime, lines: Mapping[Key, Line]) -> None:
    conn.execute(_REMOVE, {"start": start})
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
