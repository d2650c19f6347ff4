"""The day's budget in SMS parts: in total, for each category, and with a reserve that only critical messages may use.

A project may have a budget of its own; its messages count for that and for the one of the installation.

Redis counts the parts, in the same atomic call as the per-number limits. After a wipe of Redis its counters are
restored from Postgres. A message is counted once, however often a worker asks about it. The sender asks once more when
the message's row is committed, and so refuses a message that a wipe of Redis let through.

Some counted messages are not sent after all: the person clicked while the message waited, or the provider refused it.
Their parts are given back just before another message would be refused, at most once a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category
from knocktwice_worker.database import by_time
from knocktwice_worker.database.test_rows import real_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: The SQL of a message's id in the counters, of ``deliveries`` ``d``.
COUNTED_ID = "CAST(d.notification_id AS text) || CASE WHEN d.step > 1 THEN '.' || d.step ELSE '' END"


@dataclass(frozen=True, slots=True)
class Budget:
    """The allowed SMS parts per calendar day. ``0`` means no limit.

    Attributes:
        total: the limit for all categories together.
        reserve: the last parts of ``total``, which only critical messages may use.
        categories: the limit for each category alone. A category that is left out has none.
    """

    total: int = 0
    reserve: int = 0
    categories: Mapping[Category, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.total or any(self.categories.values()))

    def arguments(self) -> list[int]:
        """Return the arguments of the Lua script: total, reserve, then each category in order."""
        return [self.total, self.reserve, *(self.categories.get(c, 0) for c in Category)]


@dataclass(frozen=True, slots=True)
class Spent:
    """The SMS parts that are used today so far.

    Attributes:
        total: the parts of all messages.
        category: the parts of the messages of one category.
    """

    total: int
    category: int


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An SMS that is counted and not sent yet.

    Attributes:
        id: its id in the counters.
        category: the category whose budget it counts for.
        parts: the number of its parts.
        certain: a sender has claimed it, so it is counted even if it exceeds the budget.
    """

    id: str
    category: Category
    parts: int
    certain: bool


@dataclass(slots=True)
class Today:
    """The day's use of the budget according to Postgres.

    Attributes:
        done: the parts sent, by category.
        under_way: the messages not sent yet: first the claimed ones, then the reserved ones, each by age.
    """

    done: dict[Category, int]
    under_way: list[UnderWay]

    @property
    def spent(self) -> dict[Category, int]:
        """Parts by category, those under way included."""
        return {c: self.done.get(c, 0) + sum(u.parts for u in self.under_way if u.category is c) for c in Category}

    def written(self) -> str:
        """Return the text that the Lua script reads: the parts sent by category, then each message under way."""
        done = ",".join(str(self.done.get(c, 0)) for c in Category)
        return f"{done};" + ",".join(
            f"{u.id}:{u.category}:{u.parts}:{'c' if u.certain else 'w'}" for u in self.under_way
        )


class Purse:
    """Counts like the Lua script, for the time when Redis is down. It begins with the messages under way that fit."""

    def __init__(self, budget: Budget, today: Today) -> None:
        self._budget = budget
        self._spent = {c: today.done.get(c, 0) for c in Category}
        self._counted: set[str] = set()
        for one in today.under_way:
            self.spend(one.id, one.category, one.parts, certain=one.certain)

    def affords(self, id_: str, category: Category, parts: int) -> bool:
        """Return whether a message may go that is not counted yet, or was counted before. Nothing is counted."""
        budget, spent = self._budget, self.spent(category)
        most = budget.total - (0 if category is Category.CRITICAL else budget.reserve)
        allowed = budget.categories.get(category, 0)
        return id_ in self._counted or not (
            (budget.total and spent.total + parts > most) or (allowed and spent.category + parts > allowed)
        )

    def spend(self, id_: str, category: Category, parts: int, *, certain: bool = False) -> bool:
        """Count a message once, and return whether it may go. A ``certain`` one is always counted: it is being sent."""
        if id_ in self._counted:
            return True
        if not certain and not self.affords(id_, category, parts):
            return False
        self._counted.add(id_)
        self._spent[category] += parts
        return True

    def spent(self, category: Category) -> Spent:
        """Return the parts used so far, in total and by this category."""
        return Spent(sum(self._spent.values()), self._spent[category])


_COUNTED = by_time.since("d.counted_at", "CAST(:start AS timestamptz)")
#: The SMS that were counted since ``:start``, of one project or of all, with their batches ``b``. Tests cost nothing.
_TODAY = f"""
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.parts IS NOT NULL AND {_COUNTED} AND {real_message("d")}
  AND (CAST(:project AS text) IS NULL OR n.project = :project)
"""

# An SMS of unknown outcome is counted, because it may have been paid for.
_DONE = text(f"""
SELECT
  b.category,
  sum(d.parts) AS parts
{_TODAY} AND d.state IN ('sent', 'unknown')
GROUP BY 1
""")

# Claimed messages come first, because they are certain to be sent.
_UNDER_WAY = text(f"""
SELECT
  {COUNTED_ID} AS id,
  b.category,
  d.parts,
  d.state = 'sending' AS certain
{_TODAY} AND d.state IN ('reserved', 'sending')
ORDER BY d.state = 'reserved', d.counted_at, d.notification_id
""")


def today(conn: Connection, start: datetime, project: str | None = None) -> Today:
    """Return the use of the budget on the day that began at ``start``, by a project or by all.

    Reads all SMS of the day.
    """
    wanted = {"start": start, "project": project}
    done = {Category(row.category): int(row.parts) for row in conn.execute(_DONE, wanted)}
    rows = conn.execute(_UNDER_WAY, wanted)
    return Today(done, [UnderWay(r.id, Category(r.category), r.parts, r.certain) for r in rows])


# A message with a provider's id was accepted and is paid for, whatever its state is, so it is left out.
_NOT_SENT = text(f"""
SELECT {COUNTED_ID} AS id FROM deliveries d
WHERE d.parts IS NOT NULL AND {_COUNTED} AND d.state IN ('skipped', 'cancelled', 'failed')
  AND d.provider_id IS NULL
""")


def not_sent(conn: Connection, start: datetime) -> Sequence[str]:
    """Return the ids of the messages whose parts were counted since ``start`` and never used."""
    return [row.id for row in conn.execute(_NOT_SENT, {"start": start})]


# An advisory lock that, like the locks of the numbers, lasts until the end of the transaction.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('knocktwice:budget', 2))")


def lock(conn: Connection) -> None:
    """Let one transaction at a time count in Postgres."""
    conn.execute(_LOCK)
