"""The Lua scripts on fakeredis: many histories in little time.

Their twins on a real server are in tests/integration/limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import fakeredis
from hypothesis import given, settings
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

    from knocktwice_worker.limits.asks import Ask

#: How long an example takes depends on who else uses the machine.
patient = settings(deadline=None)
#: fakeredis has no INFO. The script asks it for one thing only: which start of the server this is.
_INFO = "redis.call('INFO', 'server')"


def counters(redis: fakeredis.FakeRedis) -> Counters:
    counter = Counters(redis, LIMITS)
    source = str(counter._script.script)
    assert source.count(_INFO) == 1
    counter._script = redis.register_script(source.replace(_INFO, "'run_id:first'"))
    return counter


@patient
@given(COUNTING)
def test_no_history_of_messages_breaks_a_limit(history: Sequence[tuple[str, Ask]]) -> None:
    redis = fakeredis.FakeRedis()
    counting_holds(counters(redis), redis, history)


@patient
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=12), st.randoms())
def test_the_order_of_messages_decides_who_passes_but_not_how_many(
    contents: Sequence[tuple[int, int]], dice: random.Random
) -> None:
    redis = fakeredis.FakeRedis()
    order = list(range(len(contents)))
    dice.shuffle(order)
    order_does_not_matter(counters(redis), redis, contents, order)


@patient
@given(PAUSES)
def test_a_short_pause_does_not_end_a_long_one(pauses: Sequence[int]) -> None:
    patience_holds(fakeredis.FakeRedis(), pauses)


@patient
@given(COSTS, st.sampled_from([0.001, 1, 7]))
def test_a_bucket_is_not_overdrawn(batches: Sequence[Sequence[int]], per_s: float) -> None:
    pace_holds(fakeredis.FakeRedis(), batches, per_s)


@patient
@given(OUTCOMES)
def test_a_provider_is_demoted_by_its_errors_and_back_after_a_good_probe(
    outcomes: Sequence[tuple[int, int, bool]],
) -> None:
    health_holds(fakeredis.FakeRedis(), outcomes)
