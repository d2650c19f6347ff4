"""The counts of messages according to Postgres: to restore those of Redis, and to do without Redis while it is down."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_shared.test_side import MARK
from knocktwice_worker.database import by_time
from knocktwice_worker.database.bulk import numbered_rows, rows
from knocktwice_worker.database.test_rows import real_message
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits import budget
from knocktwice_worker.limits.asks import TRIAL, Answer, Ask, Own, own_trial, project_of, tries
from knocktwice_worker.limits.budget import COUNTED_ID, Purse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from knocktwice_worker.limits.asks import Limits, ProjectLimits
    from knocktwice_worker.limits.budget import Spent

_ASKED = numbered_rows(
    "a",
    "i",
    number="text",
    channel="text",
    fingerprint="bytea",
    project="text",
    test="boolean",
    per_day="integer",
    hold="interval",
)
#: A project's own limits count only its messages. Tests are counted apart.
_OF_LEVEL = f"""a.test <> ({real_message("d")}) AND (
      a.project IS NULL
      OR EXISTS (
        SELECT FROM notifications n
        WHERE n.id = d.notification_id AND n.project = a.project || CASE WHEN a.test THEN '{MARK}' ELSE '' END)
    )"""

_TODAY = by_time.since("d.counted_at", "CAST(:start AS timestamptz)")

# One query for the whole batch. For each message an index finds the rows of its number.
_KNOWN = text(f"""
SELECT
  a.i,
  today.ids,
  today.waits,
  today.counted,
  holder.id AS holder,
  holder.waits AS holder_waits,
  holder.counted_at AS holder_counted
FROM {_ASKED}
CROSS JOIN LATERAL (
  SELECT
    coalesce(array_agg(t.id ORDER BY t.waits, t.counted_at, t.id), '{{}}') AS ids,
    coalesce(array_agg(t.waits ORDER BY t.waits, t.counted_at, t.id), '{{}}') AS waits,
    coalesce(array_agg(t.counted_at ORDER BY t.waits, t.counted_at, t.id), '{{}}') AS counted
  FROM (
    SELECT
      {COUNTED_ID} AS id,
      d.state = 'reserved' AS waits,
      d.counted_at
    FROM deliveries d
    WHERE d.number = a.number AND d.channel = a.channel AND {_TODAY}
      AND d.state IN ('reserved', 'sending', 'sent', 'unknown') AND {_OF_LEVEL}
    ORDER BY 2, 3, 1 LIMIT a.per_day
  ) t
) today
LEFT JOIN LATERAL (
  SELECT
    {COUNTED_ID} AS id,
    d.state = 'reserved' AS waits,
    d.counted_at
  FROM deliveries d
  WHERE d.number = a.number AND d.channel = a.channel AND d.fingerprint = a.fingerprint
    AND d.counted_at > CAST(:now AS timestamptz) - a.hold
    AND {by_time.on_days_since("d.counted_at", "CAST(:held AS timestamptz)")}
    AND d.state IN ('reserved', 'sending', 'sent', 'unknown') AND {_OF_LEVEL}
  ORDER BY d.state = 'reserved', d.counted_at, d.notification_id LIMIT 1
) holder ON true
ORDER BY a.i
""")


@record
class Known:
    """The messages to a number that a database knows of, at one level.

    Attributes:
        today: the day's messages to it: whether each only waits, since when it counts, and its id; in this order.
        holder: likewise the message that holds the content; ``None``: none does.
    """

    today: Sequence[tuple[bool, datetime, str]]
    holder: tuple[bool, datetime, str] | None


def known_in_postgres(
    conn: Connection, asks: Sequence[Ask], limits: Limits, now: datetime
) -> list[tuple[list[str], str]]:
    """Return, per ask and level, the ids that Postgres counts for its number today, and the holder of its content.

    Sent messages come first, then reservations by age, and the list is cut at the limit. So if a wipe of Redis let
    eleven reservations through, the eleventh is not in the list, and is refused when its sender asks.
    """
    return [([one[2] for one in k.today], k.holder[2] if k.holder else "") for k in known_rows(conn, asks, limits, now)]


def known_rows(conn: Connection, asks: Sequence[Ask], limits: Limits, now: datetime) -> list[Known]:
    """Return the same with what it is sorted by, to be put together with what other databases know."""
    _, start, _ = limits.day(now)
    asked = [(ask, of) for ask in asks for of in limits.levels(ask)]
    found = conn.execute(
        _KNOWN,
        {
            "number": [ask.number for ask, _ in asked],
            "channel": [ask.channel for ask, _ in asked],
            "fingerprint": [ask.fingerprint for ask, _ in asked],
            "project": [project_of(of) for _, of in asked],
            "test": [ask.test for ask, _ in asked],
            "per_day": [limits.level(of).per_day or 1_000 for _, of in asked],
            "hold": [limits.level(of).same_content for _, of in asked],
            "start": start,
            "held": now - max((limits.level(of).same_content for _, of in asked), default=timedelta()),
            "now": now,
        },
    )
    return [
        Known(
            list(zip(row.waits, row.counted, row.ids, strict=True)),
            None if row.holder is None else (row.holder_waits, row.holder_counted, row.holder),
        )
        for row in found
    ]


# A message with a provider's id was accepted, whatever became of it, so it is left out.
_UNSENT = text(f"""
SELECT
  d.notification_id,
  d.number,
  d.fingerprint,
  d.channel,
  d.step,
  n.project
FROM (SELECT DISTINCT a.number, a.channel FROM {rows("a", number="text", channel="text")}) a
JOIN deliveries d ON d.number = a.number AND d.channel = a.channel
  AND {by_time.since("d.counted_at", "CAST(:since AS timestamptz)")}
JOIN notifications n ON n.id = d.notification_id
WHERE d.state IN ('skipped', 'cancelled', 'failed') AND d.provider_id IS NULL AND d.fingerprint IS NOT NULL
""")


def unsent_in_postgres(conn: Connection, asks: Sequence[Ask], limits: Limits, now: datetime) -> list[Ask]:
    """Return the messages to the numbers of these asks that were counted and ended without having gone out."""
    found = conn.execute(
        _UNSENT,
        {
            "number": [ask.number for ask in asks],
            "channel": [ask.channel for ask in asks],
            "since": min(limits.day(now)[1], now - limits.longest_hold),
        },
    )
    return [
        Ask(
            str(row.notification_id),
            row.number,
            bytes(row.fingerprint),
            channel=row.channel,
            step=row.step,
            project=row.project,
        )
        for row in found
    ]


# Advisory locks on the numbers. The sorted order prevents a deadlock between transactions with the same numbers.
_LOCK_NUMBERS = text("""
SELECT pg_advisory_xact_lock(hashtextextended(n, 2))
FROM (SELECT unnest(CAST(:numbers AS text[])) AS n ORDER BY 1) s
""")


def count_in_postgres(conn: Connection, asks: Sequence[Ask], limits: Limits, now: datetime) -> list[Answer]:
    """Answer like :meth:`RedisLimits.count`, but from Postgres alone, while Redis is down.

    The numbers stay locked until the transaction ends, so the reservations must be written in the same transaction.
    """
    conn.execute(_LOCK_NUMBERS, {"numbers": sorted({a.address for a in asks})})
    known = iter(known_in_postgres(conn, asks, limits, now))
    counts: dict[str | None, _Counts] = {}
    for ask in asks:
        for of in limits.levels(ask):
            ids, holder = next(known)
            counts.setdefault(of, _Counts(limits.level(of))).take_in(ask, ids, holder)
    if any(limits.level(of).budget for of in counts):
        # Lock order: the numbers before the budget. Another order could deadlock.
        budget.lock(conn)
        for of, level in counts.items():
            if level.limits.budget:
                level.purse = Purse(level.limits.budget, budget.today(conn, limits.day(now)[1], project_of(of)))
    answers = []
    for ask in asks:
        in_force = [counts[of] for of in limits.levels(ask) if not tries(of)]
        tried, own = counts.get(TRIAL), counts.get(own_trial(ask.level)) if ask.level else None
        answers.append(_count_one(ask, in_force, tried, own))
    return answers


class _Counts:
    """The counts of one level.

    Attributes:
        limits: the level's limits.
        today: address → the ids of the day's messages to it.
        holders: address and fingerprint → the id of the message that holds the content.
        purse: counts the level's budget; ``None``: it has none.
    """

    def __init__(self, limits: Limits | ProjectLimits) -> None:
        self.limits = limits
        self.today: dict[str, set[str]] = {}
        self.holders: dict[tuple[str, bytes], str] = {}
        self.purse: Purse | None = None

    def take_in(self, ask: Ask, ids: Sequence[str], holder: str) -> None:
        """Take in what Postgres knows about a message's number."""
        self.today.setdefault(ask.address, set(ids))
        if holder:
            self.holders.setdefault((ask.address, ask.fingerprint), holder)

    def refusal(self, ask: Ask) -> Refusal | None:
        """Return why a message may not go; nothing is counted."""
        today = self.today[ask.address]
        if self.limits.same_content and self.holders.get((ask.address, ask.fingerprint), ask.id) != ask.id:
            return Refusal.DUPLICATE_CONTENT
        if self.limits.per_day and len(today) >= self.limits.per_day and ask.id not in today:
            return Refusal.CAPPED_DAILY
        if self.purse and not self.purse.affords(ask.id, ask.category, ask.paid_parts):
            return Refusal.BUDGET_EXHAUSTED
        return None

    def count(self, ask: Ask) -> None:
        """Count a message that may go."""
        self.today[ask.address].add(ask.id)
        self.holders[ask.address, ask.fingerprint] = ask.id
        if self.purse:
            self.purse.spend(ask.id, ask.category, ask.paid_parts)

    def spent(self, ask: Ask) -> Spent | None:
        """Return the used parts of the budget."""
        return self.purse.spent(ask.category) if self.purse else None


def _count_one(ask: Ask, levels: Sequence[_Counts], tried: _Counts | None, tried_own: _Counts | None) -> Answer:
    refusals = [level.refusal(ask) for level in levels]
    refusal = next((one for one in refusals if one), None)
    trial = trial_of_own = None
    if refusal is None:
        for level in levels:
            level.count(ask)
        trial = _try(ask, tried) if tried else None
        trial_of_own = _try(ask, tried_own) if tried_own else None
    every, *project = levels
    own = None
    if project and ask.level is not None:
        refused = refusals[0] is None and refusals[1] is not None
        own = Own(ask.level, refused, len(project[0].today[ask.address]), project[0].spent(ask))
    return Answer(refusal, len(every.today[ask.address]), every.spent(ask), own, trial, trial_of_own)


def _try(ask: Ask, tried: _Counts) -> Refusal | None:
    """Return why the trial would have stopped a message that goes; what it would have let go it counts."""
    if (refusal := tried.refusal(ask)) is None:
        tried.count(ask)
    return refusal
