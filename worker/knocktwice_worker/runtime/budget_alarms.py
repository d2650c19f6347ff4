"""Alarms of the day's budget: half of it is used, four fifths, all. Webhooks and the log tell each once a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import structlog
from sqlalchemy import text

from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.switches import overrides

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_worker.limits.budget import Budget
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: Percent of the budget at which an alarm is raised.
SHARES = (50, 80, 100)
#: A message may have so many parts. While fewer are left, it may be refused though something is left.
_LONGEST = 10


@dataclass(frozen=True, slots=True)
class Use:
    """How much of one limit is used today.

    Attributes:
        name: a category, or ``all``.
        project: whose own limit it is; ``None``: the installation's.
        limit: the allowed SMS parts; ``0``: there is no limit.
        reserve: the last of them, which only critical messages may use.
        used: the parts that Redis has counted.
    """

    name: str
    limit: int
    reserve: int
    used: int
    project: str | None = None

    def share(self, *, refused: bool) -> int | None:
        """Return the highest of :data:`SHARES` that is reached; ``None``: none, or there is no limit.

        Args:
            refused: a message was just refused for some limit. If this one has no room for a long message, it was this
                one.
        """
        open_ = self.limit - self.reserve
        if not self.limit:
            return None
        if refused and self.used + _LONGEST > open_:
            return 100
        return max((share for share in SHARES if 100 * self.used >= share * open_), default=None)


def uses(here: Services) -> tuple[str, list[Use]]:
    """Return the day, and what is used of each limit that holds now; empty while nothing is limited.

    Raises:
        RedisError: Redis does not answer.
    """
    with here.engine.connect() as conn:
        return uses_by(conn, here)


def uses_by(conn: Connection, here: Services) -> tuple[str, list[Use]]:
    """Return the same as :func:`uses`, asked over one connection.

    Raises:
        RedisError: Redis does not answer.
    """
    budgets: dict[str | None, Budget] = {None: overrides.in_force(conn, here.settings).budget}
    budgets |= {name: own.budget for name, own in here.limits.limits.projects.items()}
    budgets = {name: budget for name, budget in budgets.items() if budget}
    if not budgets:
        return "", []
    now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    day = here.limits.limits.day(now)[0]
    pipe = here.redis.pipeline(transaction=False)
    for project, budget in budgets.items():
        pipe.hmget(here.limits.limits.budget_key(day, project), ["total", *budget.categories])
    found: list[Use] = []
    for (project, budget), counted in zip(budgets.items(), pipe.execute(), strict=True):
        total, *used = (int(one or 0) for one in cast("list[bytes | None]", counted))
        found.append(Use("all", budget.total, budget.reserve, total, project))
        limits = zip(budget.categories.items(), used, strict=True)
        found += [Use(category.value, limit, 0, parts, project) for (category, limit), parts in limits]
    return day, found


_REFUSED = text("""
SELECT EXISTS (
  SELECT FROM deliveries
  WHERE finished_at > knocktwice_now() - interval '1 minute' AND step > 0 AND reason = :reason
)
""")


def look(here: Services) -> None:
    """Raise an alarm for each limit that has reached another share. Any number of workers may look at once."""
    day, found = uses(here)
    if not found:
        return
    with here.engine.begin() as conn:
        refused = conn.execute(_REFUSED, {"reason": Refusal.BUDGET_EXHAUSTED.value}).scalar_one()
        for use in found:
            if (share := use.share(refused=refused)) is None:
                continue
            facts: dict[str, object] = {
                "day": day,
                "budget": use.name,
                "percent": share,
                "used": use.used,
                "limit": use.limit,
                "reserve": use.reserve,
            }
            if use.project is not None:
                facts["project"] = use.project
            # With the limit in it, a budget that an operator raised is told anew.
            of = "" if use.project is None else f"{use.project} "
            if alarms.sound(conn, alarms.BUDGET, f"{day} {of}{use.name} {use.limit} {share}", facts):
                log.warning("the budget is used up" if share == max(SHARES) else "much of the budget is used", **facts)
