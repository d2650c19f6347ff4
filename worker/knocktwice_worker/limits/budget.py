"""The day's budget in SMS parts: for all, for each category, and with a reserve that only critical messages may use.

Redis counts, in the same atomic call as the per-number limits; Postgres knows, and tells a Redis that has forgotten. A
message is counted once, however often its workers ask. Its sender asks once more when its row is committed: what a wipe
of Redis let through twice is refused before it is sent.

Parts of messages that did not go after all (clicked while they waited their turn, refused by the provider) are given
back when they are missed: before a message is refused, at most once a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """SMS parts per calendar day. ``0`` is no limit.

    Attributes:
        total: for all categories together.
        reserve: the last parts of ``total``, which only critical messages may use.
        categories: for each category alone; left out is no limit.
    """

    total: int = 0
    reserve: int = 0
    categories: Mapping[Category, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.total or any(self.categories.values()))

    def arguments(self) -> list[int]:
        """Return it as the script takes it: total, reserve, then each category in order."""
        return [self.total, self.reserve, *(self.categories.get(c, 0) for c in Category)]


@dataclass(frozen=True, slots=True)
class Spent:
    """Parts of the day so far.

    Attributes:
        total: of all messages.
        category: of the messages of one category.
    """

    total: int
    category: int


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An SMS that is counted and not sent yet.

    Attributes:
        notification_id: whose.
        category: whose budget it counts for.
        parts: how many.
        certain: a sender has claimed it, so it counts whatever the budget says.
    """

    notification_id: str
    category: Category
    parts: int
    certain: bool


@dataclass(slots=True)
class Today:
    """What Postgres knows of the day.

    Attributes:
        done: parts sent, by category.
        under_way: first what a sender has claimed, then by age.
    """

    done: dict[Category, int]
    under_way: list[UnderWay]

    @property
    def spent(self) -> dict[Category, int]:
        """Parts by category, those under way included."""
        return {c: self.done.get(c, 0) + sum(u.parts for u in self.under_way if u.category is c) for c in Category}

    def written(self) -> str:
        """Return it as the script takes it: parts sent by category, then each one under way."""
        done = ",".join(str(self.done.get(c, 0)) for c in Category)
        return f"{done};" + ",".join(
            f"{u.notification_id}:{u.category}:{u.parts}:{'c' if u.certain else 'w'}" for u in self.under_way
        )


class Purse:
    """The script's counting in Python, for when Redis is down. It starts with the messages under way that fit."""

    def __init__(self, budget: Budget, today: Today) -> None:
        self._budget = budget
        self._spent = {c: today.done.get(c, 0) for c in Category}
        self._counted: set[str] = set()
        for one in today.under_way:
            self.spend(one.notification_id, one.category, one.parts, certain=one.certain)

    def spend(self, id_: str, category: Category, parts: int, *, certain: bool = False) -> bool:
        """Count a message once, and return whether it may go; what is ``certain`` has gone already."""
        if id_ in self._counted:
            return True
        budget, spent = self._budget, self.spent(category)
        most = budget.total - (0 if category is Category.CRITICAL else budget.reserve)
        allowed = budget.categories.get(category, 0)
        if not certain and (
            (budget.total and spent.total + parts > most) or (allowed and spent.category + parts > allowed)
        ):
            return False
        self._counted.add(id_)
        self._spent[category] += parts
        return True

    def spent(self, category: Category) -> Spent:
        """Return what is spent by now."""
        return Spent(sum(self._spent.values()), self._spent[category])


#: The SMS that were counted since ``:start``, with their batches ``b``.
_TODAY = """
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.parts IS NOT NULL AND d.counted_at >= :start
"""

# An SMS of unknown outcome may have been paid for.
_DONE = text(f"""
SELECT
  b.category,
  sum(d.parts) AS parts
{_TODAY} AND d.state IN ('sent', 'unknown')
GROUP BY 1
""")

# Claimed ones first: nothing stops them any more.
_UNDER_WAY = text(f"""
SELECT
  d.notification_id,
  b.category,
  d.parts,
  d.state = 'sending' AS certain
{_TODAY} AND d.state IN ('reserved', 'sending')
ORDER BY d.state = 'reserved', d.counted_at, d.notification_id
""")


def today(conn: Connection, start: datetime) -> Today:
    """Return what Postgres knows of the day that began at ``start``. Reads all of its SMS."""
    done = {Category(row.category): int(row.parts) for row in conn.execute(_DONE, {"start": start})}
    rows = conn.execute(_UNDER_WAY, {"start": start})
    return Today(done, [UnderWay(str(r.notification_id), Category(r.category), r.parts, r.certain) for r in rows])


# A message with a provider's id was taken and is paid for, whatever became of it.
_NOT_SENT = text("""
SELECT notification_id FROM deliveries
WHERE parts IS NOT NULL AND counted_at >= :start AND state IN ('skipped', 'cancelled', 'failed')
  AND provider_id IS NULL
""")


def not_sent(conn: Connection, start: datetime) -> Sequence[str]:
    """Return the notifications whose parts were counted since ``start`` and never used."""
    return [str(row.notification_id) for row in conn.execute(_NOT_SENT, {"start": start})]


# Like the numbers' locks, for the end of the transaction.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('knocktwice:budget', 2))")


def lock(conn: Connection) -> None:
    """Let one transaction at a time count in Postgres."""
    conn.execute(_LOCK)
