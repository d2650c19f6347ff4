"""The outcome of a day under one set of rules: what people saw, what it cost, and what was stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_worker.lifecycle import Verdict
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from datetime import datetime, timedelta

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
  coalesce(sum(parts) FILTER (WHERE channel = 'sms'), 0) AS parts,
  count(*) FILTER (WHERE channel = 'whatsapp') AS whatsapp
FROM deliveries
WHERE step > 0 AND state = 'sent'
GROUP BY number
""")
# Between the last decision and the hand-over: for the pace, a brake, or a provider that failed.
_WAITED = sa.text("""
SELECT
  l.decided_at,
  d.finished_at
FROM deliveries d
CROSS JOIN LATERAL (
  SELECT max(at) AS decided_at
  FROM decisions
  WHERE notification_id = d.notification_id AND step = d.step AND verdict = ANY(:verdicts)
) l
WHERE d.step > 0 AND d.state = 'sent' AND d.finished_at > l.decided_at + interval '1 second'
""")
_PUSHES_WAITED = sa.text("""
SELECT
  count(*) AS pushes,
  coalesce(max(p.finished_at - n.created_at), interval '0') AS longest
FROM deliveries p
JOIN notifications n ON n.id = p.notification_id
WHERE p.step = 0 AND p.state = 'sent' AND p.finished_at > n.created_at + interval '1 second'
""")
_BRAKES = sa.text("SELECT count(*) FROM brakes")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a day under one set of rules.

    Attributes:
        notifications: that the application sent.
        by_push: people who saw the push, and not an SMS before it.
        clicked: who clicked it.
        sms: SMS that the provider took.
        had_seen: of these, those to people who had seen the push or the WhatsApp message by then.
        pumped: of these, those that somebody asked for to earn by them.
        whatsapp: WhatsApp messages that the provider took.
        parts: what the SMS are paid by.
        cost: what both cost; ``None``: the file has no price for one of them.
        brakes: how often the brake or the pumping guard came on.
        waited, most_waiting, longest_wait_s: messages that waited for their hand-over, for the pace for example; how
            many did at once; and the longest such wait.
        pushes_waited, push_longest_wait_s: the same of pushes.
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
    pumped: int
    whatsapp: int
    parts: int
    cost: float | None
    brakes: int
    waited: int
    most_waiting: int
    longest_wait_s: float
    pushes_waited: int
    push_longest_wait_s: float
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
        country = world.people[row.number].group.country
        for count, prices in ((row.parts, day.prices), (row.whatsapp, day.whatsapp_prices)):
            price = prices.get(country, prices.get("*"))
            priced = priced and (price is not None or not count)
            money += count * (price or 0)
    waited = [(row.decided_at, row.finished_at) for row in conn.execute(_WAITED, {"verdicts": list(Verdict)})]
    pushes = conn.execute(_PUSHES_WAITED).one()
    waits = [one.reached - one.at for one in told if one.reached is not None]
    return Outcome(
        notifications=len(told),
        by_push=sum(one.seen_push is not None and one.seen_push == one.reached for one in told),
        clicked=sum(one.clicked is not None for one in told),
        sms=sum(one.texted is not None for one in told),
        had_seen=sum(one.had_seen for one in told),
        pumped=sum(one.texted is not None and one.person.pumped for one in told),
        whatsapp=sum(one.whatsapped is not None for one in told),
        parts=parts,
        cost=round(money, 4) if priced else None,
        brakes=conn.execute(_BRAKES).scalar_one(),
        waited=len(waited),
        most_waiting=_most_at_once(waited),
        longest_wait_s=max((end - begin).total_seconds() for begin, end in waited) if waited else 0.0,
        pushes_waited=pushes.pushes,
        push_longest_wait_s=pushes.longest.total_seconds(),
        reached=len(waits),
        within={durations.written(span): _within(waits, span) for span in day.within},
        suppressed={row.reason: row.messages for row in conn.execute(_SUPPRESSED)},
        states={row.state: row.messages for row in conn.execute(_STATES)},
    )


def _most_at_once(spans: list[tuple[datetime, datetime]]) -> int:
    # Whoever ends a wait at a time makes room before another begins one.
    moments = sorted([(end, -1) for _, end in spans] + [(begin, 1) for begin, _ in spans])
    return max(accumulate(change for _, change in moments), default=0)


def _within(waits: list[timedelta], span: timedelta) -> int:
    return sum(wait <= span for wait in waits)


def reasons(found: list[Outcome]) -> list[str]:
    """Return why SMS were suppressed under any of some sets of rules, the most frequent first."""
    counts: Counter[str] = Counter()
    for one in found:
        counts.update(one.suppressed)
    return [reason for reason, _ in counts.most_common()]
