"""The delay curve of a template: finds from its own history how long its SMS should wait.

For each possible delay it shows how many SMS would have gone out, and how many of their recipients confirmed the push
later, so that a longer delay would have saved the SMS. Only observed times count: if a push's provider dropped it after
five minutes, the push tells nothing about a delay of an hour.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.counted import many
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.lifecycle import Evidence, triggers_answered_by
from knocktwice_worker.notifications.store.trigger_sql import ANSWERED_BY_CLICK, answers
from knocktwice_worker.reporting.rollups import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from knocktwice_shared.messages import When

#: The delays that are compared.
CANDIDATES = tuple(
    timedelta(seconds=s)
    for s in (30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400, 172_800, 259_200)
)
#: Of those who ever confirm a push, the share that the suggested delay waits for.
PATIENCE = 0.95
#: With fewer pushes, or fewer of them confirmed, nothing can be said.
FEWEST_PUSHES, FEWEST_CONFIRMED = 200, 50
#: About how many of the latest pushes are looked at.
_MOST_PUSHES = 10_000
#: About how many notifications of all templates are read for them, in how many slices: where a template is rare, its
#: pushes lie far apart.
_MOST_ROWS, _MOST_SLICES = 150_000, 200
#: How long before it was accepted a message got its id, and after that where clocks differ.
_BEHIND, _AHEAD = timedelta(minutes=5), timedelta(minutes=1)
#: Pushes younger than this are left alone.
_REST = timedelta(hours=1)


class TooLittleHistory(KnocktwiceError):
    """Nothing can be said yet: send more with this template, and let the app report receipts."""


@dataclass(frozen=True, slots=True)
class Point:
    """One delay of the curve.

    Attributes:
        after: the delay.
        sms: how many of the pushes would have been followed by an SMS.
        confirmed_later: how many of those were confirmed afterwards: SMS that nobody would have needed.
    """

    after: timedelta
    sms: int
    confirmed_later: int


@dataclass(frozen=True, slots=True)
class Advice:
    """A delay curve.

    Attributes:
        template: whose.
        when: the trigger that decides what confirms a push: the one most used.
        pushes: how many were looked at, the latest ones.
        confirmed: how many of them were ever confirmed.
        curve: by delay, ascending.
        horizon: how long these pushes could be confirmed: until their provider dropped them, or until now. Longer
            delays cannot be judged.
        suggested: the shortest delay by which most of those who ever confirm have done so; ``None`` if none of the
            curve's waits long enough.
    """

    template: str
    when: When
    pushes: int
    confirmed: int
    curve: Sequence[Point]
    horizon: timedelta
    suggested: timedelta | None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, times in seconds."""
        return {
            "template": self.template,
            "when": self.when,
            "pushes": self.pushes,
            "confirmed": self.confirmed,
            "horizon_s": self.horizon.total_seconds(),
            "suggested_s": self.suggested and self.suggested.total_seconds(),
            "curve": [
                {"after_s": p.after.total_seconds(), "sms": p.sms, "confirmed_later": p.confirmed_later}
                for p in self.curve
            ],
        }


# The roll-ups know which slices of time hold this template, so only those are read, the latest first.
_SLICES = text("""
SELECT
  slice,
  wanted,
  blasts
FROM (
  SELECT
    slice,
    sum(accepted) - sum(cancelled) AS wanted,
    array_agg(DISTINCT blast) FILTER (WHERE blast <> '') AS blasts,
    sum(sum(pushed)) OVER newest_first - sum(pushed) AS later,
    sum((SELECT rows FROM rollup_slices WHERE starts_at = slice)) OVER newest_first AS read
  FROM rollups
  WHERE template = :template
    AND (CAST(:project AS text) IS NULL OR project = :project)
    AND slice > 'epoch'
    AND slice < knocktwice_now() - :rest
    AND day > knocktwice_now() - interval '45 days'
  GROUP BY slice
  HAVING sum(pushed) > 0
  WINDOW newest_first AS (ORDER BY slice DESC)
) s
WHERE later < :most AND (read <= :most_rows OR later = 0)
ORDER BY slice DESC
LIMIT :most_slices
""")

# Whose pushes: those of messages whose id was made around that time, and those of the pages of blasts, whose ids are
# older. OFFSET 0 keeps the order of the joins, the latest ones first. Left to itself PostgreSQL may read all batches.
_BY_ID = f"""
SELECT
  n.id,
  n.created_at,
  b.ttl
FROM (
  SELECT b.id, b.ttl
  FROM {rows("span", first="uuid", last="uuid")}
  CROSS JOIN LATERAL (
    SELECT id, ttl, content FROM batches
    WHERE id >= span.first AND id < span.last
    ORDER BY id DESC
    LIMIT :most_rows
  ) b
  WHERE b.content->>'template' = :template
    AND NOT EXISTS (SELECT FROM blast_pages WHERE id = b.id)
  UNION ALL
  SELECT p.id, b.ttl
  FROM blasts x
  CROSS JOIN LATERAL (
    SELECT id FROM blast_pages
    WHERE blast_id = x.id AND sent_at >= :since AND sent_at < :until
    ORDER BY id DESC
    LIMIT :most
  ) p
  CROSS JOIN LATERAL (SELECT ttl FROM batches WHERE id = p.id AND content->>'template' = :template OFFSET 0) b
  WHERE x.key = ANY(CAST(:blasts AS text[]))
  OFFSET 0
) b
CROSS JOIN LATERAL (
  SELECT id, created_at FROM notifications
  WHERE batch_id = b.id
    AND created_at >= :since AND created_at < :until
    AND (CAST(:project AS text) IS NULL OR project = :project)
    AND NOT {is_test("project")}
    AND state <> 'cancelled'
  OFFSET 0
) n
LIMIT :most
"""

# Producers whose clocks are wrong make ids of other times. Then rows are found by our own time, however long that
# takes.
_BY_TIME = f"""
SELECT
  n.id,
  n.created_at,
  b.ttl
FROM {rows("slice", starts_at="timestamptz")}
CROSS JOIN LATERAL (
  SELECT id, batch_id, created_at FROM notifications
  WHERE created_at >= slice.starts_at
    AND created_at < slice.starts_at + :width
    AND (CAST(:project AS text) IS NULL OR project = :project)
    AND NOT {is_test("project")}
    AND state <> 'cancelled'
  OFFSET 0
) n
CROSS JOIN LATERAL (SELECT ttl FROM batches WHERE id = n.batch_id AND content->>'template' = :template OFFSET 0) b
LIMIT :most
"""

# The receipts of the push that answer the step behind it. A push is watched until its provider drops it, or until now.
_PUSHES = """
SELECT
  least(extract(epoch FROM n.ttl), extract(epoch FROM knocktwice_now() - n.created_at)) AS watched_s,
  s.trigger,
  extract(epoch FROM e.answered_at - n.created_at) AS answered_s
FROM ({source}) n
LEFT JOIN LATERAL (
  SELECT s.*
  FROM deliveries s
  JOIN deliveries p ON p.notification_id = n.id AND p.step = 0 AND p.channel = 'push' AND p.state = 'sent'
  WHERE s.notification_id = n.id AND s.step = 1 AND s.trigger IN {triggers}
  OFFSET 0
) s ON true
LEFT JOIN LATERAL (
  SELECT min(e.received_at) FILTER (WHERE {answers}) AS answered_at
  FROM events e
  WHERE e.notification_id = n.id AND e.step = 0
) e ON true
"""
_PUSHES_BY_ID, _PUSHES_BY_TIME = (
    text(_PUSHES.format(source=source, triggers=ANSWERED_BY_CLICK, answers=answers("s")))
    for source in (_BY_ID, _BY_TIME)
)


def advise(conn: Connection, template: str, project: str | None = None) -> Advice:
    """Return the delay curve of a template.

    Args:
        project: judge by the pushes of this project alone.

    Raises:
        TooLittleHistory: there are too few pushes, or too few of them were confirmed.
    """
    found = [row for row in _latest(conn, template, project) if row.trigger is not None]
    used = Counter(row.trigger for row in found)
    when = max(triggers_answered_by(Evidence.CLICKED), key=lambda trigger: used[trigger])
    pushes = [
        (float(r.watched_s), None if r.answered_s is None else float(r.answered_s)) for r in found if r.trigger == when
    ]
    return _advise(template, when, pushes)


def _latest(conn: Connection, template: str, project: str | None) -> Sequence[Row[Any]]:
    """Return the latest notifications of a template, with what came of their pushes."""
    most = {"most": _MOST_PUSHES, "most_rows": _MOST_ROWS}
    scope = {"template": template, "project": project}
    slices = conn.execute(_SLICES, {**most, **scope, "most_slices": _MOST_SLICES, "rest": _REST}).all()
    if not slices:
        return []
    conn.execute(text("SET LOCAL enable_seqscan = off"))
    starts = [row.slice for row in slices]
    spans = list(_spans(starts))
    wanted = {
        "first": [str(_id_of(first)) for first, _ in spans],
        "last": [str(_id_of(last)) for _, last in spans],
        "blasts": list({key for row in slices for key in row.blasts or ()}),
        "since": starts[-1],
        "until": starts[0] + SLICE,
    }
    found = conn.execute(_PUSHES_BY_ID, {**most, **scope, **wanted}).all()
    if 2 * len(found) >= min(sum(row.wanted for row in slices), _MOST_PUSHES):
        return found
    by_time = {"starts_at": starts, "width": SLICE, "most": _MOST_PUSHES}
    return conn.execute(_PUSHES_BY_TIME, {**scope, **by_time}).all()


def _spans(starts: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the spans in which the ids were made of what was accepted in some slices; both the latest first."""
    first = last = None
    for start in starts:
        if first is None or start + SLICE + _AHEAD < first:
            if first is not None and last is not None:
                yield first, last
            last = start + SLICE + _AHEAD
        first = start - _BEHIND
    if first is not None and last is not None:
        yield first, last


def _id_of(at: datetime) -> UUID:
    """Return the first UUIDv7 of a time."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def _advise(template: str, when: When, pushes: Sequence[tuple[float, float | None]]) -> Advice:
    """Judge pushes of (how long it was watched, time to the confirmation), both in seconds."""
    answered = [at for _, at in pushes if at is not None]
    if len(pushes) < FEWEST_PUSHES or len(answered) < FEWEST_CONFIRMED:
        raise TooLittleHistory(
            f"template {template}: {many(len(pushes), 'push', 'pushes')} older than an hour, {len(answered)} of them confirmed; "
            f"at least {FEWEST_PUSHES} and {FEWEST_CONFIRMED} are needed to advise"
        )
    # Nine in ten were watched at least that long.
    horizon = sorted(watched for watched, _ in pushes)[len(pushes) // 10]
    curve = [_point(after, answered, len(pushes)) for after in CANDIDATES if after.total_seconds() <= horizon]
    suggested = next((p.after for p in curve if len(answered) - p.confirmed_later >= PATIENCE * len(answered)), None)
    return Advice(template, when, len(pushes), len(answered), curve, timedelta(seconds=horizon), suggested)


def _point(after: timedelta, answered: Sequence[float], pushes: int) -> Point:
    later = sum(at > after.total_seconds() for at in answered)
    return Point(after, pushes - len(answered) + later, later)
