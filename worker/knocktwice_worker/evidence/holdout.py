"""The holdout: what the SMS are worth, by comparing people who were texted with people who were drawn not to be.

Only decisions taken while the experiment ran are compared, each notification once, with all who were drawn at the same
place: also those whose SMS a limit stopped afterwards. So the draw is the only difference between the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_worker.notifications.pipeline.experiment import Arm

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

#: The normal distribution's quantile for intervals of 95 %.
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Group:
    """One arm of the experiment.

    Attributes:
        notifications: how many were drawn for it.
        answered: how many of them were answered within the time: clicked, seen elsewhere, or replied to.
        texted: how many of them got a message of a later step.
        parts: the SMS parts of these messages.
        answered_waiting: how many were answered while they waited longer; of the probe only.
    """

    notifications: int = 0
    answered: int = 0
    texted: int = 0
    parts: int = 0
    answered_waiting: int = 0

    @property
    def share(self) -> float | None:
        """The share that answered; ``None``: there is nobody in the group."""
        return self.answered / self.notifications if self.notifications else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two shares, from -1 to 1, with its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the experiment.

    Attributes:
        groups: of each arm.
        uplift: the share of answers with SMS less that without; ``None`` while one of the groups is empty.
        needless: the share of the probe that answered while it waited; ``None`` while nobody is in it.
    """

    groups: dict[Arm, Group]
    uplift: Difference | None
    needless: Difference | None

    @property
    def parts_per_answer(self) -> float | None:
        """SMS parts that one more answer takes; ``None``: no answers more, as far as one can tell."""
        texted = self.groups[Arm.TEXTED]
        if self.uplift is None or self.uplift.low <= 0:
            return None
        return texted.parts / (self.uplift.value * texted.notifications)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; shares from 0 to 1."""

        def plain(found: Difference | None) -> dict[str, float] | None:
            return None if found is None else {"value": found.value, "low": found.low, "high": found.high}

        names = ("notifications", "answered", "texted", "parts", "answered_waiting")
        return {
            "groups": {arm.value: {name: getattr(group, name) for name in names} for arm, group in self.groups.items()},
            "uplift": plain(self.uplift),
            "parts_per_answer": self.parts_per_answer,
            "needless": plain(self.needless),
        }


# The first decision with a draw counts: later steps of the same notification share it.
_GROUPS = text("""
WITH drawn AS (
  SELECT DISTINCT ON (l.notification_id)
    l.notification_id,
    l.inputs ->> 'experiment' AS arm,
    l.at,
    CAST(l.inputs ->> 'until' AS timestamptz) AS until
  FROM decisions l
  WHERE l.at > knocktwice_now() - :since
    AND l.at <= knocktwice_now() - :within
    AND l.step > 0
    AND l.inputs ? 'experiment'
  ORDER BY l.notification_id, l.id
)
SELECT
  w.arm,
  count(*) AS notifications,
  count(*) FILTER (WHERE c.at <= w.at + :within) AS answered,
  count(*) FILTER (WHERE m.texted) AS texted,
  coalesce(sum(m.parts), 0) AS parts,
  count(*) FILTER (WHERE c.at <= w.until) AS answered_waiting
FROM drawn w
JOIN notifications n ON n.id = w.notification_id
JOIN batches b ON b.id = n.batch_id
LEFT JOIN LATERAL (
  SELECT min(received_at) AS at FROM events
  WHERE notification_id = w.notification_id AND kind IN ('clicked', 'seen', 'replied') AND received_at >= w.at
) c ON true
LEFT JOIN LATERAL (
  SELECT
    true AS texted,
    sum(parts) AS parts
  FROM deliveries WHERE notification_id = w.notification_id AND step > 0 AND state IN ('sent', 'unknown')
  HAVING count(*) > 0
) m ON true
WHERE CAST(:template AS text) IS NULL OR b.content ->> 'template' = :template
GROUP BY 1
""")


def compare(conn: Connection, since: timedelta, within: timedelta, template: str | None = None) -> Result:
    """Compare the groups.

    Args:
        conn: a connection of its own, whose transaction is read only.
        since: how far back.
        within: the time that people had to answer, from the decision on. Younger decisions are left out.
        template: only messages with this template.
    """
    conn.execute(text("SET TRANSACTION READ ONLY"))
    found = conn.execute(_GROUPS, {"since": since, "within": within, "template": template})
    groups = {arm: Group() for arm in Arm} | {Arm(row.arm): Group(*map(int, row[1:])) for row in found}
    return of(groups)


# Along the index of the draws alone, the newest first.
_NTH = text("""
SELECT knocktwice_now() - at FROM decisions
WHERE inputs ? 'experiment' AND at <= knocktwice_now() - :within
ORDER BY at DESC OFFSET :most LIMIT 1
""")


def reach(conn: Connection, longest: timedelta, within: timedelta, most: int) -> timedelta:
    """Return how far back one can compare without looking at more than about ``most`` draws; ``longest`` at most.

    Args:
        within: draws younger than this are not counted, as :func:`compare` leaves them out.
    """
    nth: timedelta | None = conn.execute(_NTH, {"within": within, "most": most}).scalar()
    return longest if nth is None else min(nth, longest)


def of(groups: dict[Arm, Group]) -> Result:
    """Return what these groups say."""
    texted, held_out, probe = groups[Arm.TEXTED], groups[Arm.HELD_OUT], groups[Arm.PROBE]
    uplift = needless = None
    if texted.notifications and held_out.notifications:
        uplift = difference(texted.answered, texted.notifications, held_out.answered, held_out.notifications)
    if probe.notifications:
        low, high = interval(probe.answered_waiting, probe.notifications)
        needless = Difference(probe.answered_waiting / probe.notifications, low, high)
    return Result(groups, uplift, needless)


def interval(count: int, among: int) -> tuple[float, float]:
    """Return Wilson's score interval of 95 % of a share (E. B. Wilson, JASA 22, 1927)."""
    share, z = count / among, _Z * _Z
    middle = share + z / (2 * among)
    half = _Z * sqrt(share * (1 - share) / among + z / (4 * among * among))
    return max(0.0, (middle - half) / (1 + z / among)), min(1.0, (middle + half) / (1 + z / among))


def difference(count: int, among: int, other_count: int, other_among: int) -> Difference:
    """Return the difference of two shares with Newcombe's hybrid score interval of 95 %.

    It is right for small groups and rare answers, too (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).
    """
    one, other = count / among, other_count / other_among
    (low, high), (other_low, other_high) = interval(count, among), interval(other_count, other_among)
    value = one - other
    return Difference(
        value,
        value - sqrt((one - low) ** 2 + (other_high - other) ** 2),
        value + sqrt((high - one) ** 2 + (other - other_low) ** 2),
    )
