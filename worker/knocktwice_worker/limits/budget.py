"""The day's budget in SMS parts: for all, for each category, and with a reserve that only critical messages may use.

Redis counts, in the same atomic call as the per-number limits; Postgres knows, and tells a Redis that has forgotten. As
with those limits a message is counted once, whoever asks how often, and its sender asks once more when its row is committed:
so what a wipe let through twice is refused before it is sent.

Parts of messages that did not go after all (clicked while they waited their turn, refused by the provider) are given back
when they are missed: before a message is refused, at most once a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

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


class Spent(NamedTuple):
    """Parts of the day so far: of all messages, and of those of one category."""

    total: int
    category: int


class Held(NamedTuple):
    """An SMS that is counted and still under way."""

    notification_id: str
    category: Category
    parts: int
    certain: bool


@dataclass(slots=True)
class Today:
    """What Postgres knows of the day.

    Attributes:
        done: parts sent, by category.
        held: what is under way: first what a sender has claimed, then by age.
    """

    done: dict[Category, int]
    held: list[Held]

    @property
    def spent(self) -> dict[Category, int]:
        """Parts by category, those under way included."""
        return {c: self.done.get(c, 0) + sum(h.parts for h in self.held if h.category is c) for c in Category}

    def written(self) -> str:
        """Return it as the script takes it: parts sent by category, then each one under way."""
        done = ",".join(str(self.done.get(c, 0)) for c in Category)
        return f"{done};" + ",".join(
            f"{h.notification_id}:{h.category}:{h.parts}:{'c' if h.certain else 'w'}" for h in self.held
        )


class Purse:
    """The script's counting in Python, for when Redis is down. What is under way and fits is counted from the start."""

    def __init__(self, budget: Budget, today: Today) -> None:
        self._budget = budget
        self._spent = {c: today.done.get(c, 0) for c in Category}
        self._held: set[str] = set()
        for held in today.held:
            self.spend(held.notification_id, held.category, held.parts, certain=held.certain)

    def spend(self, id_: str, category: Category, parts: int, *, certain: bool = False) -> bool:
        """Count a message once, and return whether it may go; what is ``certain`` has gone already."""
        if id_ in self._held:
            return True
        budget, (total, own) = self._budget, self.spent(category)
        most = budget.total - (0 if category is Category.CRITICAL else budget.reserve)
        allowed = budget.categories.get(category, 0)
        if not certain and ((budget.total and total + parts > most) or (allowed and own + parts > allowed)):
            return False
        self._held.add(id_)
        self._spent[category] += parts
        return True

    def spent(self, category: Category) -> Spent:
        """Return what is spent by now."""
        return Spent(sum(self._spent.values()), self._spent[category])


_TODAY = """
FROM deliveries d JOIN notifications n ON n.id = d.notification_id JOIN batches b ON b.id = n.batch_id
WHERE d.parts IS NOT NULL AND d.counted_at >= :start
"""

_DONE = text(f"SELECT b.category, sum(d.parts) AS parts {_TODAY} AND d.state IN ('sent', 'unknown') GROUP BY 1")

_UNDER_WAY = text(f"""
SELECT d.notification_id, b.category, d.parts, d.state = 'sending' AS certain {_TODAY} AND d.state IN ('reserved', 'sending')
ORDER BY d.state = 'reserved', d.counted_at, d.notification_id
""")

# One with a provider's id was taken, and is paid for, whatever became of it.
_NOT_SENT = text("""
SELECT notification_id FROM deliveries
WHERE parts IS NOT NULL AND counted_at >= :start AND state IN ('skipped', 'cancelled', 'failed') AND provider_id IS NULL
""")


def today(conn: Connection, start: datetime) -> Today:
    """Return what Postgres knows of the day that began at ``start``. Reads all of its SMS."""
    done = {Category(row.category): int(row.parts) for row in conn.execute(_DONE, {"start": start})}
    rows = conn.execute(_UNDER_WAY, {"start": start})
    return Today(done, [Held(str(r.notification_id), Category(r.category), r.parts, r.certain) for r in rows])


def not_sent(conn: Connection, start: datetime) -> Sequence[str]:
    """Return the notifications whose parts were counted since ``start`` and never used."""
    return [str(row.notification_id) for row in conn.execute(_NOT_SENT, {"start": start})]


def lock(conn: Connection) -> None:
    """Let one transaction at a time count in Postgres."""
    conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('knocktwice:budget', 2))"))
