"""The Lua scripts on a real Valkey: the twins of tests/unit/limits/test_lua_scripts.py, with fewer histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.script_properties import (
    COSTS,
    COUNTING,
    LIMITS,
    OUTCOMES,
    PAUSES,
    Counters,
    counting_holds,
    health_holds,
    order_does_not_matter,
    pace_holds,
    patience_holds,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from redis import Redis

    from knocktwice_worker.limits.asks import Ask

#: The server is slower than the fake, and the properties are the same. One keyspace serves all examples of a test.
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def emptied(redis: Redis) -> Redis:
    redis.flushdb()
    return redis


@few
@given(COUNTING)
def test_no_history_of_messages_breaks_a_limit(valkey: Redis, history: Sequence[tuple[str, Ask]]) -> None:
    redis = emptied(valkey)
    counting_holds(Counters(redis, LIMITS), redis, history)


@few
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=12), st.randoms())
def test_the_order_of_messages_decides_who_passes_but_not_how_many(
    valkey: Redis, contents: Sequence[tuple[int, int]], dice: random.Random
) -> None:
    redis = emptied(valkey)
    order = list(range(len(contents)))
    dice.shuffle(order)
    order_does_not_matter(Counters(redis, LIMITS), redis, contents, order)


@few
@given(PAUSES)
def test_a_short_pause_does_not_end_a_long_one(valkey: Redis, pauses: Sequence[int]) -> None:
    patience_holds(emptied(valkey), pauses)


@few
@given(COSTS, st.sampled_from([0.001, 1, 7]))
def test_a_bucket_is_not_overdrawn(valkey: Redis, batches: Sequence[Sequence[int]], per_s: float) -> None:
    pace_holds(emptied(valkey), batches, per_s)


@few
@given(OUTCOMES)
def test_a_provider_is_demoted_by_its_errors_and_back_after_a_good_probe(
    valkey: Redis,
    outcomes: Sequence[tuple[int, int, bool]],
) -> None:
    health_holds(emptied(valkey), outcomes)
