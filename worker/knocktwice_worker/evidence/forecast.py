"""The forecast: how many SMS the next hour will bring, from the steps that wait now and from the delay curves.

Nobody knows what will be accepted meanwhile, so only what is accepted by now is counted. A step that waits for an
answer is due with the share of pushes that stayed unanswered until its time, of those unanswered so far.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.lifecycle import Evidence, triggers_answered_by
from knocktwice_worker.reporting import delay_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection, Row

    from knocktwice_worker.reporting.delay_curve import Advice
    from knocktwice_worker.reporting.outcome_figures import Figures

#: So many open steps are looked at.
MOST = 100_000
#: The normal distribution's quantile for intervals of 95 %.
_Z = 1.959964
#: The triggers of steps that an answer to the push makes unnecessary.
_ANSWERABLE = [str(when) for when in triggers_answered_by(Evidence.CLICKED)]

# What an operator or a brake holds goes when they say so. Times are put together by tens of seconds.
_OPEN = text(f"""
SELECT
  coalesce(b.content ->> 'template', '') AS template,
  d.trigger,
  coalesce(d.state <> 'scheduled' OR d.trigger IS NULL OR p.state IN ('failed', 'skipped'), false) AS certain,
  coalesce(d.after_step = 0 AND p.state = 'sent' AND d.trigger = ANY(:answerable), false) AS waits,
  10 * round(extract(epoch FROM knocktwice_now() - p.finished_at) / 10) AS waited_s,
  10 * round(extract(epoch FROM d.due_at - p.finished_at) / 10) AS after_s,
  count(*) AS steps
FROM (
  SELECT notification_id, step, trigger, state, after_step, due_at
  FROM deliveries
  WHERE wake_at <= knocktwice_now() + :span AND step > 0 AND channel = 'sms'
    AND paused IS NULL AND (brake IS NULL OR brake_waived)
  LIMIT :most
) d
JOIN notifications n ON n.id = d.notification_id AND NOT {is_test("n.project")}
JOIN batches b ON b.id = n.batch_id
LEFT JOIN deliveries p ON p.notification_id = d.notification_id AND p.step = 0
GROUP BY 1, 2, 3, 4, 5, 6
""")


@dataclass(frozen=True, slots=True)
class Forecast:
    """The SMS of a span.

    Attributes:
        steps: how many SMS wait and may be due by then.
        expected: how many of them are to be expected.
        low, high: the interval of 95 %; what has no history counts as none in the one, as all in the other.
        without_history: how many of the steps nobody can judge.
        parts: SMS parts to each message, of late; ``None``: none was sent.
        price: of each message, of late; ``None``: it is not known.
        more: there are more steps than were looked at.
    """

    steps: int
    expected: float
    low: float
    high: float
    without_history: int
    parts: float | None
    price: Decimal | None
    more: bool

    def cost(self, messages: float) -> Decimal | None:
        """Return what so many messages cost; ``None``: nobody knows."""
        return None if self.price is None else self.price * Decimal(str(round(messages, 3)))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, money as text."""
        bounds = {"expected": self.expected, "low": self.low, "high": self.high}
        plain: dict[str, Any] = {"steps": self.steps, "without_history": self.without_history, "more": self.more}
        plain["sms"] = {name: round(count, 1) for name, count in bounds.items()}
        plain["parts"] = {name: self.parts and round(self.parts * count, 1) for name, count in bounds.items()}
        costs = {name: self.cost(count) for name, count in bounds.items()}
        plain["cost"] = {name: None if cost is None else f"{cost:.4f}" for name, cost in costs.items()}
        return plain


def forecast(conn: Connection, span: timedelta, lately: Figures) -> Forecast:
    """Return the SMS that are to be expected within ``span``.

    Args:
        conn: a connection of its own.
        lately: the figures of the last days, for parts and prices.
    """
    rows = conn.execute(_OPEN, {"span": span, "most": MOST, "answerable": _ANSWERABLE}).all()
    curves: dict[str, Advice | None] = {}
    for template in {row.template for row in rows if row.waits and row.template}:
        try:
            curves[template] = delay_curve.advise(conn, template)
        except delay_curve.TooLittleHistory:
            curves[template] = None
    expected = variance = 0.0
    unknown = 0
    for row in rows:
        share = _share(row, curves)
        if share is None:
            unknown += row.steps
            continue
        expected += row.steps * share
        variance += row.steps * share * (1 - share)
    spread = _Z * sqrt(variance)
    steps = sum(row.steps for row in rows)
    sent = lately.sms_sent
    return Forecast(
        steps,
        expected + unknown / 2,
        max(0.0, expected - spread),
        min(float(steps), expected + spread + unknown),
        unknown,
        lately.sms_parts / sent if sent else None,
        lately.sms_cost / sent if sent and lately.sms_cost is not None else None,
        steps >= MOST,
    )


def _share(row: Row[Any], curves: Mapping[str, Advice | None]) -> float | None:
    """Return the share of these steps that will be due; ``None``: nobody can tell."""
    if row.certain:
        return 1.0
    curve = curves.get(row.template) if row.waits else None
    if curve is None or row.trigger != curve.when:
        return None
    unanswered = _unanswered(curve)
    still = unanswered(float(row.waited_s))
    return min(1.0, unanswered(max(float(row.after_s), float(row.waited_s))) / still) if still else 1.0


def _unanswered(curve: Advice) -> Callable[[float], float]:
    """Return the share of pushes that are unanswered after some seconds, between the points of a delay curve."""
    times: Sequence[float] = [0.0, *(point.after.total_seconds() for point in curve.curve)]
    shares: Sequence[float] = [1.0, *(point.sms / curve.pushes for point in curve.curve)]

    def at(seconds: float) -> float:
        place = bisect_right(times, seconds)
        if place >= len(times):
            return shares[-1]
        part = (seconds - times[place - 1]) / (times[place] - times[place - 1])
        return shares[place - 1] + part * (shares[place] - shares[place - 1])

    return at
