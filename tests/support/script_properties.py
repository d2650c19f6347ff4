"""What must hold of the Lua scripts for every history: played on fakeredis in a moment, and on a real server, with
fewer examples.

Each ``…_hold`` function plays one history on an empty keyspace and asserts after each step. A property that only the
fake keeps would be one of the fake's; one that only the server breaks would be found by the twin.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from knocktwice_shared.messages import Category
from knocktwice_worker.channels.outbound.pacing import Pace
from knocktwice_worker.channels.outbound.provider_choice import Providers, Why
from knocktwice_worker.channels.outcomes import Retry, Sent
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits.asks import Ask, Limits
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.limits.per_number import RedisLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PER_DAY = 3
BUDGET = Budget(total=12, reserve=3, categories={Category.MARKETING: 5})
LIMITS = Limits(per_day=PER_DAY, same_content=timedelta(hours=1), zone=ZoneInfo("UTC"), secret=b"test", budget=BUDGET)
#: What Postgres knows of a day on which nothing was sent yet.
_NOTHING_SPENT = "0,0,0;"

#: Few people and few texts, so that they meet; the number in an id says which message it is.
ASKS = st.builds(
    lambda n, number, content, parts, category: Ask(f"n{n}", f"+1650555010{number}", content, parts, category),
    st.integers(0, 30),
    st.integers(0, 2),
    st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
    st.integers(0, 4),
    st.sampled_from(Category),
)
#: A message asks, or gives back what it was counted for, or the server forgets the day's budget as by a restart.
COUNTING = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "again", "release", "restart"]), ASKS), min_size=1, max_size=40
)
PAUSES = st.lists(st.integers(1, 3_000), min_size=1, max_size=6)
COSTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=8)
#: Of each batch: how many went well, how many did not, and whether these were probes.
OUTCOMES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=12)


class Counters(RedisLimits):
    """The limits beside a Postgres in which nothing was sent yet."""

    def ask(self, asks: Sequence[Ask], *, spent: str = _NOTHING_SPENT) -> list[tuple[Refusal | None, int, int, int]]:
        """Return of each its refusal, its number's count, and the day's parts in total and in its category."""
        answer = self._call(asks, NOON, [([], "")] * len(asks), {None: spent})
        words = {b"duplicate": Refusal.DUPLICATE_CONTENT, b"capped": Refusal.CAPPED_DAILY}
        words[b"exhausted"] = Refusal.BUDGET_EXHAUSTED
        return [
            (words.get(answer[i]), int(answer[i + 1]), int(answer[i + 2]), int(answer[i + 3]))
            for i in range(0, len(answer), 4)
        ]


@dataclass
class _Books:
    """The rules in the words of limits.py, kept beside the script."""

    today: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    holders: dict[tuple[str, bytes], str] = field(default_factory=dict)
    parts: dict[str, tuple[Category, int]] = field(default_factory=dict)

    def spent(self, category: Category | None = None) -> int:
        return sum(parts for c, parts in self.parts.values() if category in (None, c))

    def ask(self, ask: Ask) -> Refusal | None:
        if self.holders.get((ask.number, ask.fingerprint), ask.id) != ask.id:
            return Refusal.DUPLICATE_CONTENT
        if ask.id not in self.today[ask.number] and len(self.today[ask.number]) == PER_DAY:
            return Refusal.CAPPED_DAILY
        if ask.id not in self.parts:
            most = BUDGET.total - (0 if ask.category is Category.CRITICAL else BUDGET.reserve)
            own = BUDGET.categories.get(ask.category)
            if self.spent() + ask.parts > most or (own and self.spent(ask.category) + ask.parts > own):
                return Refusal.BUDGET_EXHAUSTED
            self.parts[ask.id] = ask.category, ask.parts
        self.today[ask.number].add(ask.id)
        self.holders[ask.number, ask.fingerprint] = ask.id
        return None

    def release(self, ask: Ask) -> None:
        self.today[ask.number].discard(ask.id)
        self.parts.pop(ask.id, None)
        if self.holders.get((ask.number, ask.fingerprint)) == ask.id:
            del self.holders[ask.number, ask.fingerprint]

    def written(self) -> str:
        """Return the day's parts as Postgres brings them after a restart: all of them still under way."""
        return "0,0,0;" + ",".join(f"{id_}:{category}:{parts}:c" for id_, (category, parts) in self.parts.items())


def counting_holds(counter: Counters, redis: Redis, history: Sequence[tuple[str, Ask]]) -> None:
    """Never more than so many a day, one content once, nothing counted twice, given back exactly,
    no budget overspent.
    """
    books = _Books()
    day = LIMITS.day(NOON)[0]
    budget = LIMITS.budget_key(day)
    asked: list[Ask] = []
    for what, drawn in history:
        # Two drawn messages are hardly ever the same one; what is given back or asked again was asked before.
        ask = asked[int(drawn.id[1:]) % len(asked)] if what in ("release", "again") and asked else drawn
        if what == "release":
            counter.release([ask], NOON)
            books.release(ask)
        elif what == "restart":
            # The keys are kept; the server that counted them is another one. Postgres' word replaces what they say.
            if redis.exists(budget):
                redis.hset(budget, mapping={"run": "another", "total": 99, "marketing": 99})
        else:
            asked.append(ask)
            before = books.written()
            refusal = books.ask(ask)
            count, spent, own = len(books.today[ask.number]), books.spent(), books.spent(ask.category)
            for _ in range(2):
                # The second time it must be as if it had not been asked before.
                assert counter.ask([ask], spent=before) == [(refusal, count, spent, own)]
            assert count <= PER_DAY
            assert spent <= BUDGET.total
            assert books.spent(Category.MARKETING) <= BUDGET.categories[Category.MARKETING]
            assert redis.scard(LIMITS.keys(ask, day)[1]) == count
        assert {key for key in redis.keys("*") if redis.ttl(key) < 0} <= {b"{knocktwice:sms}:complete"}


def order_does_not_matter(
    counter: Counters, redis: Redis, contents: Sequence[tuple[int, int]], order: Sequence[int]
) -> None:
    """Whoever comes first: as many pass to each number, and never two with one text."""
    asks = [Ask(f"n{i}", f"+1650555010{n}", bytes([c]), 0) for i, (n, c) in enumerate(contents)]
    passed: defaultdict[str, list[bytes]] = defaultdict(list)
    for ask, (refusal, *_) in zip([asks[i] for i in order], counter.ask([asks[i] for i in order]), strict=True):
        if refusal is None:
            passed[ask.number].append(ask.fingerprint)
    for number in {a.number for a in asks}:
        texts = {a.fingerprint for a in asks if a.number == number}
        assert len(passed[number]) == len(set(passed[number])) == min(PER_DAY, len(texts))
    redis.flushdb()


def patience_holds(redis: Redis, pauses: Sequence[int]) -> None:
    """Nothing goes before the longest pause that a provider asked for is over, in whatever order it asked."""
    pace = Pace(redis, name="p", per_s=1_000)
    started = _time(redis)
    for pause in pauses:
        pace.slow_down(timedelta(seconds=pause))
    turn = pace.take([1])
    assert turn.granted == 0
    assert turn.waits[0].total_seconds() >= max(pauses) - (_time(redis) - started)
    assert redis.ttl("knocktwice:pace:p") > 0
    bucket: Any = redis.hgetall("knocktwice:pace:p")
    # Refusals that come within a second of each other are one sign.
    assert float(bucket[b"cut"]) >= 0.5 or _time(redis) - started > 1


def pace_holds(redis: Redis, batches: Sequence[Sequence[int]], per_s: float) -> None:
    """All together cost no more than a burst and what time has brought, but for the one that emptied the bucket."""
    pace, started = Pace(redis, name="p", per_s=per_s), _time(redis)
    went: list[int] = []
    for costs in batches:
        granted = pace.take(costs).granted
        went += costs[:granted]
        assert granted == len(costs) or sum(went) >= per_s
        paid = [cost for cost in went if cost]
        assert sum(paid[:-1]) <= per_s * (1 + _time(redis) - started) + 1e-6


def health_holds(redis: Redis, outcomes: Sequence[tuple[int, int, bool]]) -> None:
    """A provider is demoted by its share of errors, brought back by a good probe alone, and probed by one at a time."""
    share, sample = 0.5, 6
    providers = Providers(
        redis, {"p": 1}, share=share, sample=sample, pause=timedelta(hours=1), patience=timedelta(minutes=1)
    )
    good = bad = 0
    demoted = False
    for well, badly, probe in outcomes:
        why = Why.PROBE if probe else None
        providers.note([*[("p", why, Sent("1"))] * well, *[("p", why, Retry("busy"))] * badly])
        if not well + badly:
            continue
        if demoted:
            if probe and not badly:
                good, bad, demoted = 0, 0, False
        else:
            good, bad = good + well, bad + badly
            demoted = bool(badly and good + bad >= sample and bad >= (good + bad) * share)
        (health,) = providers.health()
        assert (health.reason == "busy") is demoted
        assert (health.ok, health.bad) == (good, bad)
        assert redis.exists("knocktwice:{providers}:p") == 0 or redis.ttl("knocktwice:{providers}:p") > 0
    if demoted:
        redis.hset("knocktwice:{providers}:p", "until", 0)
        chosen = [providers.choose([(f"n{i}", None, 0)])[f"n{i}"].why for i in range(3)]
        assert chosen == [Why.PROBE, Why.ALL_DEMOTED, Why.ALL_DEMOTED]


def _time(redis: Redis) -> float:
    now: Any = redis.time()
    return float(now[0]) + float(now[1]) / 1_000_000
