"""What Redis counts of a number is forgotten when its time is over, and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits.asks import Ask, Limits
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.limits.per_number import RedisLimits
from support.redis_clock import RedisClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NUMBER = "+16502530000"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def limits(valkey: redis.Redis, *, per_day: int = 10, same: float = 30, budget: int = 0) -> RedisLimits:
    return RedisLimits(
        valkey,
        Limits(per_day, timedelta(seconds=same), ZoneInfo("UTC"), b"test", Budget(budget)),
    )


def ask(content: bytes = b"hello", id_: str | None = None) -> Ask:
    return Ask(id_ or str(uuid4()), NUMBER, content)


class Counter:
    """The limits beside a Postgres in which nothing was sent, at noon by the database's clock."""

    def __init__(self, limits: RedisLimits, engine: sa.Engine) -> None:
        self._limits, self._engine = limits, engine

    def __call__(self, one: Ask, now: datetime = NOON) -> Refusal | None:
        with self._engine.connect() as conn:
            refusal = self._limits.count(conn, [one], now)[0].refusal
        assert refusal is None or isinstance(refusal, Refusal)
        return refusal


def test_the_same_text_goes_again_after_its_seconds(valkey: redis.Redis, engine: sa.Engine) -> None:
    count, clock = Counter(limits(valkey), engine), RedisClock(valkey)
    assert count(ask()) is None
    clock.advance(29 * SECOND)
    assert count(ask()) is Refusal.DUPLICATE_CONTENT
    # One that was refused does not lock its number for longer.
    clock.advance(2 * SECOND)
    assert count(ask()) is None


def test_the_seconds_begin_anew_when_the_message_is_asked_about_at_its_claim(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    count, clock, first = Counter(limits(valkey), engine), RedisClock(valkey), ask()
    for _ in range(2):
        assert count(first) is None
        clock.advance(20 * SECOND)
    assert count(ask()) is Refusal.DUPLICATE_CONTENT
    clock.advance(11 * SECOND)
    assert count(ask()) is None


def test_without_a_limit_for_equal_texts_none_is_kept(valkey: redis.Redis, engine: sa.Engine) -> None:
    count = Counter(limits(valkey, same=0), engine)
    assert [count(ask()) for _ in range(3)] == [None] * 3
    assert not valkey.keys("*content*")


def test_a_days_count_outlives_the_longest_day_and_is_then_forgotten(valkey: redis.Redis, engine: sa.Engine) -> None:
    count, clock = Counter(limits(valkey, per_day=2), engine), RedisClock(valkey)
    assert [count(ask(bytes([n]))) for n in range(3)] == [None, None, Refusal.CAPPED_DAILY]
    # Of the clocks of two servers one may be as far behind.
    clock.advance(26 * HOUR)
    assert count(ask(b"more")) is Refusal.CAPPED_DAILY
    clock.advance(24 * HOUR)
    assert not valkey.keys("*day*")


def test_a_days_budget_outlives_the_longest_day_and_is_then_forgotten(valkey: redis.Redis, engine: sa.Engine) -> None:
    count, clock = Counter(limits(valkey, budget=1), engine), RedisClock(valkey)
    assert count(ask()) is None
    clock.advance(26 * HOUR)
    assert count(ask(b"more")) is Refusal.BUDGET_EXHAUSTED
    clock.advance(24 * HOUR)
    assert not valkey.keys("*budget*")


def test_what_was_not_used_is_looked_for_once_a_minute(valkey: redis.Redis, engine: sa.Engine) -> None:
    count, clock = Counter(limits(valkey, budget=1), engine), RedisClock(valkey)
    looked: list[str] = []

    def look(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        looked.extend(["looked"] if "provider_id IS NULL" in statement else [])

    sa.event.listen(engine, "before_cursor_execute", look)
    assert count(ask()) is None
    assert looked == []
    for after, times in ((0, 1), (59, 1), (2, 2)):
        clock.advance(after * SECOND)
        assert count(ask(str(after).encode())) is Refusal.BUDGET_EXHAUSTED
        assert len(looked) == times


@pytest.mark.parametrize(("later", "asked"), [(timedelta(hours=12, seconds=29), True), (timedelta(hours=13), False)])
def test_until_a_server_has_counted_a_whole_day_it_asks_postgres(
    valkey: redis.Redis, engine: sa.Engine, later: timedelta, asked: bool
) -> None:
    """From the next day on, and the seconds in which an equal text counts, its own counts are complete."""
    count, queries = Counter(limits(valkey), engine), []
    count(ask())
    sa.event.listen(engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
    count(ask(b"more"), NOON + later)
    assert bool(queries) is asked


def test_a_server_that_started_anew_asks_postgres_again(valkey: redis.Redis, engine: sa.Engine) -> None:
    count = Counter(limits(valkey, budget=5), engine)
    count(ask())
    # The keys were kept, and whoever counted them is gone; so is what was counted after the last copy on disk.
    valkey.hset("{knocktwice:sms}:complete", mapping={"run": "another", "complete": 0})
    queries: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
    count(ask(b"more"))
    assert [query for query in queries if "array_agg" in query]
    marker: Any = valkey.hgetall("{knocktwice:sms}:complete")
    assert float(marker[b"complete"]) == (NOON + 12 * HOUR + 30 * SECOND).timestamp()
