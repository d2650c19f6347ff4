"""The outcome of a day under one set of rules: what people saw, what it cost, and what was stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

    from knocktwice_worker.simulated.file import Day
    from knocktwice_worker.simulated.world import World

_SUPPRESSED = sa.text("""
SELECT
  split_part(reason, ':', 1) AS reason,
  count(*) AS messages
FROM notifications
WHERE state = 'suppressed'
GROUP BY 1
ORDER BY 1
""")
_STATES = sa.text("SELECT state, count(*) AS messages FROM notifications GROUP BY state ORDER BY state")
_SENT = sa.text("""
SELECT
  number,
  sum(parts) AS parts
FROM deliveries
WHERE channel = 'sms' AND state = 'sent'
GROUP BY number
""")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a day under one set of rules.

    Attributes:
        notifications: that the application sent.
        by_push: people who saw the push, and not an SMS before it.
        clicked: who clicked it.
        sms: messages that the provider took.
        had_seen: of these, those to people who had seen the push by then.
        parts: what they are paid by.
        cost: what they cost; ``None``: the file has no price for one of them.
        reached: who saw any of both.
        within: time → who did within it.
        suppressed: why no SMS went that was due → how often.
        states: how notifications ended → how many.
    """

    notifications: int
    by_push: int
    clicked: int
    sms: int
    had_seen: int
    parts: int
    cost: float | None
    reached: int
    within: dict[str, int] = field(default_factory=dict)
    suppressed: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def of(conn: Connection, day: Day, world: World) -> Outcome:
    """Return the figures of a day that is over."""
    told = world.told.values()
    parts, money = 0, 0.0
    priced = True
    for row in conn.execute(_SENT):
        parts += row.parts
        price = day.prices.get(world.people[row.number].group.country, day.prices.get("*"))
        priced = priced and price is not None
        money += row.parts * (price or 0)
    waits = [one.reached - one.at for one in told if one.reached is not None]
    return Outcome(
        notifications=len(told),
        by_push=sum(one.seen_push is not None and one.seen_push == one.reached for one in told),
        clicked=sum(one.clicked is not None for one in told),
        sms=sum(one.texted is not None for one in told),
        had_seen=sum(
            one.texted is not None and one.seen_push is not None and one.seen_push <= one.texted for one in told
        ),
        parts=parts,
        cost=round(money, 4) if priced else None,
        reached=len(waits),
        within={durations.written(span): _within(waits, span) for span in day.within},
        suppressed={row.reason: row.messages for row in conn.execute(_SUPPRESSED)},
        states={row.state: row.messages for row in conn.execute(_STATES)},
    )


def _within(waits: list[timedelta], span: timedelta) -> int:
    return sum(wait <= span for wait in waits)


def reasons(found: list[Outcome]) -> list[str]:
    """Return why SMS were suppressed under any of some sets of rules, the most frequent first."""
    counts: Counter[str] = Counter()
    for one in found:
        counts.update(one.suppressed)
    return [reason for reason, _ in counts.most_common()]
