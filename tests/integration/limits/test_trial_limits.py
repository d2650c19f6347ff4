"""Limits that are tried say what they would have stopped, as if they had been in force, and stop nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Category
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits.asks import TRIAL, Ask, Limits, ProjectLimits, own_trial
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.limits.per_number import RedisLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from knocktwice_worker.limits.asks import Answer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
STRICT = ProjectLimits(
    per_day=2,
    same_content=timedelta(hours=1),
    budget=Budget(total=14, reserve=3, categories={Category.MARKETING: 5}),
)
NONE = Limits(per_day=0, same_content=timedelta(), zone=ZoneInfo("UTC"), secret=b"test")
IN_FORCE = replace(NONE, per_day=STRICT.per_day, same_content=STRICT.same_content, budget=STRICT.budget)
AMBER = {"amber": ProjectLimits(per_day=1)}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def traffic(seed: int, *, numbers: int = 8) -> list[Ask]:
    """Messages of all categories to a few numbers, with few texts, so that each limit refuses some."""
    draw = random.Random(seed)
    return [
        Ask(
            str(UUID(int=draw.getrandbits(128))),
            f"+1650253000{draw.randrange(numbers)}",
            draw.choice([b"tea", b"soup", b"cake", b"milk"]),
            draw.randint(1, 2),
            draw.choice(list(Category)),
            project=draw.choice([None, "amber"]),
        )
        for _ in range(40)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_trial_says_what_the_limits_would_have_said_in_force_and_all_go(
    valkey: redis.Redis, engine: sa.Engine, seed: int
) -> None:
    asks = traffic(seed)
    with engine.connect() as conn:
        in_force = [a.refusal for a in RedisLimits(valkey, IN_FORCE).count(conn, asks, NOON)]
        assert len(set(in_force)) == 4, "this traffic does not meet every limit"
        valkey.flushdb()
        tried = RedisLimits(valkey, replace(NONE, trial=STRICT)).count(conn, asks, NOON)
        valkey.flushdb()
        without_redis = count_in_postgres(conn, asks, replace(NONE, trial=STRICT), NOON)
    for answers in (tried, without_redis):
        assert [a.trial for a in answers] == in_force
        assert {a.refusal for a in answers} == {None}


@pytest.mark.parametrize("seed", range(3))
def test_what_a_project_tries_counts_its_messages_alone_beside_every_other_limit(
    valkey: redis.Redis, engine: sa.Engine, seed: int
) -> None:
    asks = traffic(seed)
    of_amber = [ask for ask in asks if ask.project == "amber"]
    every = replace(NONE, per_day=4, projects=AMBER | {"blue": ProjectLimits(per_day=1)}, trial=STRICT)
    cases = [
        # Nothing else is in force: each of the project's messages goes, and gets the word that the limits would have
        # said.
        (NONE, of_amber),
        # Beside limits of all kinds only what goes is tried.
        (every, [ask for ask, a in zip(asks, _answers(valkey, engine, every, asks), strict=True) if not a.refusal]),
    ]
    for limits, going in cases:
        own = [ask for ask in going if ask.project == "amber"]
        said = {ask.id: a.refusal for ask, a in zip(own, _answers(valkey, engine, IN_FORCE, own), strict=True)}
        tried = replace(limits, own_trials={"amber": STRICT, "green": STRICT})
        plain = _answers(valkey, engine, limits, asks)
        for answers in (_answers(valkey, engine, tried, asks), _without_redis(engine, tried, asks)):
            assert [replace(a, own_trial=None) for a in answers] == plain
            assert [a.own_trial for a in answers] == [said.get(ask.id) for ask in asks]
    assert any(said.values())


def _answers(valkey: redis.Redis, engine: sa.Engine, limits: Limits, asks: list[Ask]) -> list[Answer]:
    valkey.flushdb()
    with engine.connect() as conn:
        return RedisLimits(valkey, limits).count(conn, asks, NOON)


def _without_redis(engine: sa.Engine, limits: Limits, asks: list[Ask]) -> list[Answer]:
    with engine.connect() as conn:
        return count_in_postgres(conn, asks, limits, NOON)


def test_what_is_in_force_refuses_as_without_a_trial_and_the_trial_says_nothing_of_it(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    limits = replace(NONE, per_day=4, budget=Budget(total=40), projects=AMBER)
    asks = traffic(1)
    with engine.connect() as conn:
        plain = RedisLimits(valkey, limits).count(conn, asks, NOON)
        valkey.flushdb()
        beside = RedisLimits(valkey, replace(limits, trial=STRICT)).count(conn, asks, NOON)
    assert [replace(a, trial=None) for a in beside] == plain
    assert {a.refusal for a in plain} == {None, Refusal.CAPPED_DAILY, Refusal.BUDGET_EXHAUSTED}
    assert all(a.trial is None for a in beside if a.refusal)
    assert any(a.trial for a in beside)


def test_a_message_that_asks_again_gets_the_same_word_and_counts_once(valkey: redis.Redis, engine: sa.Engine) -> None:
    two = ProjectLimits(per_day=2)
    counter = RedisLimits(valkey, replace(NONE, trial=two, own_trials={"amber": two}))
    asks = [replace(one, number="+16502530001", project="amber") for one in traffic(2)[:3]]
    with engine.connect() as conn:
        assert [a.own_trial for a in counter.count(conn, asks, NOON)] == [None, None, Refusal.CAPPED_DAILY]
        words = [a.trial for a in counter.count(conn, asks, NOON)]
        assert words == [None, None, Refusal.CAPPED_DAILY]
        assert [a.trial for a in counter.count(conn, asks, NOON)] == words
        # A message that is released makes room in the trial, too.
        counter.release(asks[:1], NOON)
        again = counter.count(conn, asks[2:], NOON)[0]
        assert (again.trial, again.own_trial) == (None, None)


def test_a_trial_keeps_nothing_of_a_person_who_is_erased(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, replace(NONE, trial=STRICT, own_trials={"amber": STRICT}))
    asks = traffic(3)
    with engine.connect() as conn:
        counter.count(conn, asks, NOON)
    for level in (TRIAL, own_trial("amber")):
        assert valkey.keys(f"*:day:*{level.replace('?', chr(92) + '?')}")
    counter.forget([one.number for one in asks], NOON)
    assert not valkey.keys("*:day:*")


def test_a_trial_is_no_more_calls_of_redis_and_asks_postgres_only_when_its_budget_begins(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    counter = RedisLimits(valkey, replace(NONE, trial=STRICT, own_trials={"amber": STRICT}))
    with engine.connect() as conn:
        # The counters of this Redis are complete from the day's end on.
        counter.count(conn, traffic(4), NOON)
        next_day = NOON + timedelta(days=2)
        counter.count(conn, traffic(5), next_day)
        statements.clear()
        before = valkey.info("commandstats")
        counter.count(conn, traffic(6), next_day)
        after = valkey.info("commandstats")
    assert statements == []
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 1
