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

from datetime import datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from knocktwice_shared.test_side import MARK
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits import budget
from knocktwice_worker.limits.asks import TAG, TRIAL, Answer, Ask, Limits, Own, own_trial, project_of, tries
from knocktwice_worker.limits.budget import Spent
from knocktwice_worker.limits.in_postgres import known_in_postgres, unsent_in_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redis import Redis
    from sqlalchemy import Connection

#: The answer of the Lua script → the reason why the message may not go.
_REFUSALS = {
    "duplicate": Refusal.DUPLICATE_CONTENT,
    "capped": Refusal.CAPPED_DAILY,
    "exhausted": Refusal.BUDGET_EXHAUSTED,
}

#: The refusals by what a number has got already.
_OF_A_NUMBER = frozenset({Refusal.DUPLICATE_CONTENT, Refusal.CAPPED_DAILY})

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


class RedisLimits:
    """Counts messages in Redis, with one Lua call per batch."""

    def __init__(self, redis: Redis, limits: Limits) -> None:
        self.limits = limits
        self._redis = redis
        self._script = redis.register_script(self._text())

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
            returned = any(a.refusal is Refusal.BUDGET_EXHAUSTED for a in answers) and self._give_back(conn, now)
            over = [ask for ask, answer in zip(asks, answers, strict=True) if answer.refusal in _OF_A_NUMBER]
            if over:
                # Before anybody is refused: places of messages that were stopped or failed, and never went out.
                returned = self.release(self._unsent(conn, over, now), now) or returned
            if returned:
                answers = self._ask(conn, asks, now)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise LimitsUnavailable from error
        return answers

    def _ask(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        answer = self._call(asks, now, None, {})
        if answer[0] == b"seed":
            _, start, _ = self.limits.day(now)
            known = self._known(conn, asks, now) if int(answer[1]) else None
            forgot = [level for level, gone in zip(self._levels(asks), answer[2:], strict=True) if int(gone)]
            spent = {of: budget.today(conn, start, project_of(of)).written() for of in forgot}
            answer = self._call(asks, now, known, spent)
        said = iter(answer)
        return [self._answer(ask, said) for ask in asks]

    def _text(self) -> str:
        return files(__package__).joinpath("per_number.lua").read_text()

    def _known(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[tuple[list[str], str]]:
        return known_in_postgres(conn, asks, self.limits, now)

    def _answer(self, ask: Ask, said: Iterator[bytes]) -> Answer:
        word, today, spent = next(said), int(next(said)), Spent(int(next(said)), int(next(said)))
        own, trials = None, {}
        for project in self.limits.levels(ask)[1:]:
            if tries(project):
                trials[project == TRIAL], _, _, _ = (
                    _REFUSALS.get(next(said).decode()),
                    next(said),
                    next(said),
                    next(said),
                )
                continue
            refused, count, used = bool(int(next(said))), int(next(said)), Spent(int(next(said)), int(next(said)))
            limits = self.limits.projects[str(project)]
            own = Own(str(project), refused, count, used if limits.budget else None)
        refusal = _REFUSALS.get(word.decode())
        if refusal:
            # What does not go is stopped by the limits in force, not by those that are tried.
            trials.clear()
        spent_today = spent if self.limits.budget else None
        return Answer(refusal, today, spent_today, own, trials.get(True), trials.get(False))

    def _unsent(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Ask]:
        return unsent_in_postgres(conn, asks, self.limits, now)

    def _levels(self, asks: Sequence[Ask]) -> list[str | None]:
        """Return the levels that count any of these messages, the installation's first."""
        projects = sorted({str(ask.level) for ask in asks if ask.level in self.limits.projects})
        tried = sorted({own_trial(str(ask.level)) for ask in asks if ask.level in self.limits.own_trials})
        return [None, *projects, *([TRIAL] if self.limits.trial else []), *tried]

    @property
    def _every_level(self) -> list[str | None]:
        return [None, *self.limits.projects, TRIAL, *map(own_trial, self.limits.own_trials)]

    def _give_back(self, conn: Connection, now: datetime) -> bool:
        """Give back the parts of messages that were counted and not sent; return whether there were any."""
        if not self._redis.set(f"{TAG}:budget:given-back", "", nx=True, ex=_GIVE_BACK_EVERY_S):
            return False
        day, start, _ = self.limits.day(now)
        unused = budget.not_sent(conn, start)
        for i in range(0, len(unused), 1_000):
            self._return(day, unused[i : i + 1_000])
        return bool(unused)

    def _return(self, day: str, ids: Sequence[str]) -> None:
        for project in self._every_level:
            if self.limits.level(project).budget:
                self._redis.eval(_GIVE_BACK, 1, self.limits.budget_key(day, project), *ids)

    def release(self, asks: Sequence[Ask], now: datetime) -> bool:
        """Give back the counts of messages that will not go, and return whether there were any.

        A failure only makes the limits stricter.
        """
        if not asks:
            return False
        day, _, _ = self.limits.day(now)
        pipe = self._redis.pipeline()
        for ask, of in [(one, level) for one in asks for level in self.limits.levels(one)]:
            content, today = self.limits.keys(ask, day, of)
            pipe.srem(today, ask.id)
            # Delete the key only if this message is its holder (Redis 8.4 and Valkey 9 have DELIFEQ; Redis 7 has not).
            pipe.eval(
                "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])",
                1,
                content,
                ask.id,
            )
        counted = pipe.execute()
        self._return(day, [ask.id for ask in asks])
        return any(counted)

    def forget(self, numbers: Sequence[str], now: datetime) -> None:
        """Delete the counters of numbers whose owner is erased.

        Content locks expire by themselves and need no clean-up.
        """
        days = [self.limits.day(now + timedelta(days=shift))[0] for shift in (-1, 0, 1)]
        asks = [Ask("", number, b"", project=side) for number in numbers for side in (None, MARK)]
        keys = [self.limits.keys(ask, day, of)[1] for ask in asks for day in days for of in self._every_level]
        if keys:
            self._redis.delete(*keys)

    def _call(
        self,
        asks: Sequence[Ask],
        now: datetime,
        known: Sequence[tuple[list[str], str]] | None,
        spent: Mapping[str | None, str],
    ) -> list[bytes]:
        """Call the script.

        Args:
            asks: the messages.
            now: the time by the database's clock.
            known: what Postgres knows of each message's number at each of its levels; ``None``: it was not asked.
            spent: level → the day's use of its budget according to Postgres.
        """
        day, _, end = self.limits.day(now)
        levels = self._levels(asks)
        keys = [f"{TAG}:complete", *(self.limits.budget_key(day, of) for of in levels)]
        # The day's keys expire after two days (172,800 s), which is longer than the longest day.
        args: list[str | int | float] = [172_800, now.timestamp(), end.timestamp(), "1" if known is not None else "0"]
        args += [
            _ms(self.limits.longest_hold),
            "".join(f" {name}" for name in sorted(self.limits.projects)),
            len(levels),
            levels.index(TRIAL) + 1 if TRIAL in levels else 0,
        ]
        for of in levels:
            level = self.limits.level(of)
            args += [level.per_day, _ms(level.same_content), *level.budget.arguments(), spent.get(of, "")]
        rows = iter(known or ())
        for ask in asks:
            own = self.limits.levels(ask)
            project = next((levels.index(of) + 1 for of in own if of is not None and not tries(of)), 0)
            tried = next((levels.index(of) + 1 for of in own if of != TRIAL and tries(of)), 0)
            args += [ask.id, ask.paid_parts, ask.category, project, tried]
            for of in own:
                keys += self.limits.keys(ask, day, of)
                ids, holder = next(rows, ([], ""))
                args += [",".join(ids), holder]
        return self._run(keys, args)

    def _run(self, keys: Sequence[str], args: Sequence[str | float]) -> list[bytes]:
        return list(self._script(keys=keys, args=args))


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
