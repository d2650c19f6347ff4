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

from sqlalchemy import text

from knocktwice_shared.counted import many
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.lifecycle import Evidence, triggers_answered_by
from knocktwice_worker.notifications.store.trigger_sql import ANSWERED_BY_CLICK, answers
from knocktwice_worker.reporting.rollups import SLICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

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
_MOST_PUSHES = 20_000
#: About how many notifications of all templates are read for them, in how many slices: where a template is rare, its pushes
#: lie far apart.
_MOST_ROWS, _MOST_SLICES = 150_000, 200
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
SELECT slice
FROM (
  SELECT
    slice,
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

# The receipts of the push that answer the step behind it. A push is watched until its provider drops it, or until now. OFFSET 0
# keeps the order of the joins: slices by time, then everything by its primary key. Left to itself PostgreSQL may begin with all
# batches of the template and read its whole history.
_PUSHES = text(f"""
SELECT
  least(extract(epoch FROM b.ttl), extract(epoch FROM knocktwice_now() - n.created_at)) AS watched_s,
  s.trigger,
  extract(epoch FROM e.answered_at - n.created_at) AS answered_s
FROM {rows("slice", starts_at="timestamptz")}
CROSS JOIN LATERAL (
  SELECT
    id,
    batch_id,
    created_at
  FROM notifications
  WHERE created_at >= slice.starts_at
    AND created_at < slice.starts_at + :width
    AND (CAST(:project AS text) IS NULL OR project = :project)
    AND NOT {is_test("project")}
    AND state <> 'cancelled'
  OFFSET 0
) n
CROSS JOIN LATERAL (
  SELECT ttl FROM batches WHERE id = n.batch_id AND content->>'template' = :template OFFSET 0
) b
CROSS JOIN LATERAL (
  SELECT s.*
  FROM deliveries s
  JOIN deliveries p ON p.notification_id = n.id AND p.step = 0 AND p.channel = 'push' AND p.state = 'sent'
  WHERE s.notification_id = n.id AND s.step = 1 AND s.trigger IN {ANSWERED_BY_CLICK}
  OFFSET 0
) s
CROSS JOIN LATERAL (
  SELECT min(e.received_at) FILTER (WHERE {answers("s")}) AS answered_at
  FROM events e
  WHERE e.notification_id = n.id AND e.step = 0
) e
""")


def advise(conn: Connection, template: str, project: str | None = None) -> Advice:
    """Return the delay curve of a template.

    Args:
        project: judge by the pushes of this project alone.

    Raises:
        TooLittleHistory: there are too few pushes, or too few of them were confirmed.
    """
    most = {"most": _MOST_PUSHES, "most_rows": _MOST_ROWS, "most_slices": _MOST_SLICES, "rest": _REST}
    slices = conn.execute(_SLICES, {**most, "template": template, "project": project}).scalars().all()
    conn.execute(text("SET LOCAL enable_seqscan = off"))
    wanted = {"starts_at": list(slices), "width": SLICE, "template": template, "project": project}
    found = conn.execute(_PUSHES, wanted).all()
    used = Counter(row.trigger for row in found)
    when = max(triggers_answered_by(Evidence.CLICKED), key=lambda trigger: used[trigger])
    pushes = [
        (float(r.watched_s), None if r.answered_s is None else float(r.answered_s)) for r in found if r.trigger == when
    ]
    return _advise(template, when, pushes)


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
