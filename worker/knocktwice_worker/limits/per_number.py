"""Per-number limits: the same content to one number once in 30 s, and at most 10 SMS per calendar day.

Redis keeps the counters, because one atomic script answers for a whole batch. Postgres keeps the truth, because Redis
can be wiped. A marker key names the server run that has counted and the time from which its counters are complete.
After a first start, a FLUSHALL, a restart or a failover the counters are incomplete. Until they are complete again,
every call also sends the rows of its numbers from Postgres.

If Redis is wiped between the decision and the provider call, it may let one message too many through. So the sender
asks once more right before the provider call, when its row is committed.

The counters contain notification ids, so a retry of a message is never counted as its duplicate. The keys contain an
HMAC of the number, never the number itself. They share a hash tag, so that one call may use them all. The day's budget
(``budget.py``) is counted in the same call.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import numbered_rows
from knocktwice_worker.lifecycle import Delay, Refusal
from knocktwice_worker.limits import budget
from knocktwice_worker.limits.budget import Budget, Purse, Spent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any
    from zoneinfo import ZoneInfo

    from redis import Redis

#: One hash tag for all keys: Redis Cluster runs a script on one slot only.
_TAG = "{knocktwice:sms}"
#: The answer of the Lua script → the reason why the message may not go.
_REFUSALS = {
    "duplicate": Refusal.DUPLICATE_CONTENT,
    "capped": Refusal.CAPPED_DAILY,
    "exhausted": Refusal.BUDGET_EXHAUSTED,
}

#: Least seconds between two searches for unused parts while the budget is exhausted.
_GIVE_BACK_EVERY_S = 60

_GIVE_BACK = """
for _, id in ipairs(ARGV) do
  local category, parts = string.match(redis.call('HGET', KEYS[1], id) or '', '(%a+):(%d+)')
  if parts then
    redis.call('HDEL', KEYS[1], id)
    redis.call('HINCRBY', KEYS[1], 'total', -parts)
    redis.call('HINCRBY', KEYS[1], category, -parts)
  end
end
"""


class LimitsUnavailable(Exception):
    """Redis did not answer. The caller counts in Postgres, or waits."""


@record
class Ask:
    """A question to the limits: may this message go to this number now?

    Attributes:
        notification_id: the notification that the message belongs to.
        number: the recipient's number in E.164.
        fingerprint: the hash of the text.
        parts: the SMS parts that count for the budget. Messages of other channels have 0.
        category: the category whose budget the parts count for.
        channel: the message's channel; each channel is counted separately.
        step: the message's step; each step of a notification is counted separately.
    """

    notification_id: str
    number: str
    fingerprint: bytes
    parts: int = 1
    category: Category = Category.TRANSACTIONAL
    channel: str = "sms"
    step: int = 1

    @property
    def id(self) -> str:
        """The message's id in the counters. The SQL in ``_KNOWN`` must make the same id."""
        return self.notification_id if self.step == 1 else f"{self.notification_id}.{self.step}"

    @property
    def address(self) -> str:
        """The address that the message is counted against: the number; for other channels than SMS with their name."""
        return self.number if self.channel == "sms" else f"{self.channel}:{self.number}"


@record
class Answer:
    """The answer of the limits about one message.

    Attributes:
        refusal: why the message may not go, or not now; ``None``: it may go.
        today: the number of messages to its address today, this one included if it may go.
        spent: the used parts of the day's budget; ``None``: there is no budget.
    """

    refusal: Refusal | Delay | None
    today: int
    spent: Spent | None = None

    def inputs(self, ask: Ask, of: Budget) -> dict[str, Any]:
        """Return the figures that the ledger keeps with the decision."""
        inputs: dict[str, Any] = {"sms_today": self.today}
        if self.spent:
            inputs |= {
                "parts": ask.parts,
                "spent_today": {"total": self.spent.total, ask.category: self.spent.category},
                "budget": {"total": of.total, "reserve": of.reserve, ask.category: of.categories.get(ask.category, 0)},
            }
        return inputs


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured limits. ``0`` switches a limit off.

    Attributes:
        per_day: the most SMS to one number per calendar day.
        same_content: the time within which one text goes to one number only once.
        zone: the time zone of the calendar day.
        secret: the key of the HMAC over numbers.
        budget: the allowed SMS parts per day.
    """

    per_day: int
    same_content: timedelta
    zone: ZoneInfo
    secret: bytes
    budget: Budget = field(default_factory=Budget)

    def day(self, now: datetime) -> tuple[str, datetime, datetime]:
        """Return the calendar day of ``now``: its name, its first moment and the next day's, in UTC.

        A day has 23 or 25 hours when the clocks change. If the change skips midnight, the day begins at the change.
        """
        today = now.astimezone(self.zone).date()
        start, end = (
            datetime.combine(date, time(), tzinfo=self.zone).astimezone(UTC)
            for date in (today, today + timedelta(days=1))
        )
        return today.isoformat(), start, end

    def keys(self, ask: Ask, day: str) -> tuple[str, str]:
        """Return the two Redis keys of an ask: the holder of its content, and the set of the day's messages."""
        number = hmac.new(self.secret, ask.address.encode(), hashlib.sha256).hexdigest()[:32]
        return f"{_TAG}:content:{number}:{ask.fingerprint.hex()}", f"{_TAG}:day:{number}:{day}"

    def budget_key(self, day: str) -> str:
        """Return the Redis key of the day's budget."""
        return f"{_TAG}:budget:{day}"


class RedisLimits:
    """Counts messages in Redis, with one Lua call per batch."""

    def __init__(self, redis: Redis, limits: Limits) -> None:
        self.limits = limits
        self._redis = redis
        self._script = redis.register_script(files(__package__).joinpath("per_number.lua").read_text())

    def count(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        """Count each ask against its number, in order, and say which may go.

        Args:
            conn: a connection to Postgres, to restore the counters that Redis has lost.
            now: the time by the database's clock.

        Raises:
            LimitsUnavailable: Redis did not answer. Some asks may have been counted; a repeated call counts none twice.
        """
        if not asks:
            return []
        try:
            answers = self._ask(conn, asks, now)
            if any(a.refusal is Refusal.BUDGET_EXHAUSTED for a in answers) and self._give_back(conn, now):
                answers = self._ask(conn, asks, now)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise LimitsUnavailable from error
        return answers

    def _ask(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        answer = self._call(asks, now, None, "")
        if answer[0] == b"seed":
            _, start, _ = self.limits.day(now)
            known = _known(conn, asks, self.limits, now) if int(answer[1]) else None
            answer = self._call(asks, now, known, budget.today(conn, start).written() if int(answer[2]) else "")
        limited = bool(self.limits.budget)
        return [
            Answer(_REFUSALS.get(word.decode()), int(count), Spent(int(total), int(own)) if limited else None)
            for word, count, total, own in zip(*(answer[i::4] for i in range(4)), strict=True)
        ]

    def _give_back(self, conn: Connection, now: datetime) -> bool:
        """Give back the parts of messages that were counted and not sent; return whether there were any."""
        if not self._redis.set(f"{_TAG}:budget:given-back", "", nx=True, ex=_GIVE_BACK_EVERY_S):
            return False
        day, start, _ = self.limits.day(now)
        unused = budget.not_sent(conn, start)
        for i in range(0, len(unused), 1_000):
            self._return(day, unused[i : i + 1_000])
        return bool(unused)

    def _return(self, day: str, ids: Sequence[str]) -> None:
        self._redis.eval(_GIVE_BACK, 1, self.limits.budget_key(day), *ids)

    def release(self, asks: Sequence[Ask], now: datetime) -> None:
        """Give back the counts of messages that will not go. A failure only makes the limits stricter."""
        day, _, _ = self.limits.day(now)
        pipe = self._redis.pipeline()
        for ask in asks:
            content, today = self.limits.keys(ask, day)
            pipe.srem(today, ask.id)
            # Delete the key only if this message is its holder (Redis 8.4 and Valkey 9 have DELIFEQ; Redis 7 has not).
            pipe.eval(
                "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])",
                1,
                content,
                ask.id,
            )
        pipe.execute()
        if self.limits.budget:
            self._return(day, [ask.id for ask in asks])

    def forget(self, numbers: Sequence[str], now: datetime) -> None:
        """Delete the counters of numbers whose owner is erased.

        Content locks expire within seconds and need no clean-up.
        """
        days = [self.limits.day(now + timedelta(days=shift))[0] for shift in (-1, 0, 1)]
        keys = [self.limits.keys(Ask("", number, b""), day)[1] for number in numbers for day in days]
        if keys:
            self._redis.delete(*keys)

    def _call(
        self, asks: Sequence[Ask], now: datetime, known: list[tuple[list[str], str]] | None, spent: str
    ) -> list[bytes]:
        day, _, end = self.limits.day(now)
        hold_ms = int(self.limits.same_content.total_seconds() * 1000)
        keys = [f"{_TAG}:complete", self.limits.budget_key(day)]
        # The day's keys expire after two days (172,800 s), which is longer than the longest day.
        args: list[str | int | float] = [self.limits.per_day, hold_ms, 172_800, now.timestamp(), end.timestamp()]
        args += ["1" if known is not None else "0", *self.limits.budget.arguments(), spent]
        for i, ask in enumerate(asks):
            keys += self.limits.keys(ask, day)
            ids, holder = known[i] if known is not None else ([], "")
            args += [ask.id, ",".join(ids), holder, ask.parts, ask.category]
        return list(self._script(keys=keys, args=args))


# One query for the whole batch. For each message an index finds the rows of its number.
_KNOWN = text(f"""
SELECT
  a.i,
  today.ids,
  holder.id AS holder
FROM {numbered_rows("a", "i", number="text", channel="text", fingerprint="bytea")}
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(t.id ORDER BY t.waits, t.counted_at, t.id), '{{}}') AS ids FROM (
    SELECT
      CAST(d.notification_id AS text) || CASE WHEN d.step > 1 THEN '.' || d.step ELSE '' END AS id,
      d.state = 'reserved' AS waits,
      d.counted_at
    FROM deliveries d
    WHERE d.number = a.number AND d.channel = a.channel AND d.counted_at >= :start
      AND d.state IN ('reserved', 'sending', 'sent', 'unknown')
    ORDER BY 2, 3, 1 LIMIT :per_day
  ) t
) today
LEFT JOIN LATERAL (
  SELECT CAST(d.notification_id AS text) || CASE WHEN d.step > 1 THEN '.' || d.step ELSE '' END AS id
  FROM deliveries d
  WHERE d.number = a.number AND d.channel = a.channel AND d.fingerprint = a.fingerprint AND d.counted_at > :since
    AND d.state IN ('reserved', 'sending', 'sent', 'unknown')
  ORDER BY d.state = 'reserved', d.counted_at, d.notification_id LIMIT 1
) holder ON true
ORDER BY a.i
""")


def _known(conn: Connection, asks: Sequence[Ask], limits: Limits, now: datetime) -> list[tuple[list[str], str]]:
    """Return, per ask, the ids that Postgres counts for its number today, and the holder of its content.

    Sent messages come first, then reservations by age, and the list is cut at the limit. So if a wipe of Redis let
    eleven reservations through, the eleventh is not in the list, and is refused when its sender asks.
    """
    _, start, _ = limits.day(now)
    found = conn.execute(
        _KNOWN,
        {
            "number": [a.number for a in asks],
            "channel": [a.channel for a in asks],
            "fingerprint": [a.fingerprint for a in asks],
            "start": start,
            "since": now - limits.same_content,
            "per_day": limits.per_day or 1_000,
        },
    )
    return [(row.ids, row.holder or "") for row in found]


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
    today: dict[str, set[str]] = {}
    holders: dict[tuple[str, bytes], str] = {}
    for ask, (ids, holder) in zip(asks, _known(conn, asks, limits, now), strict=True):
        today.setdefault(ask.address, set(ids))
        if holder:
            holders.setdefault((ask.address, ask.fingerprint), holder)
    purse = None
    if limits.budget:
        # Lock order: the numbers before the budget. Another order could deadlock.
        budget.lock(conn)
        purse = Purse(limits.budget, budget.today(conn, limits.day(now)[1]))
    return [_count_one(a, today[a.address], holders, limits, purse) for a in asks]


def _count_one(
    ask: Ask, today: set[str], holders: dict[tuple[str, bytes], str], limits: Limits, purse: Purse | None
) -> Answer:
    content = (ask.address, ask.fingerprint)
    refusal = None
    if limits.same_content and holders.get(content, ask.id) != ask.id:
        refusal = Refusal.DUPLICATE_CONTENT
    elif limits.per_day and len(today) >= limits.per_day and ask.id not in today:
        refusal = Refusal.CAPPED_DAILY
    elif purse and not purse.spend(ask.id, ask.category, ask.parts):
        refusal = Refusal.BUDGET_EXHAUSTED
    else:
        today.add(ask.id)
        holders[content] = ask.id
    return Answer(refusal, len(today), purse.spent(ask.category) if purse else None)
