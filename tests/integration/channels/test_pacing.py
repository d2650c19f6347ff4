"""All workers together keep a provider's pace, by the clock of Redis; what has no turn asks again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.pacing import Pace, Turn
from knocktwice_worker.embedded.installation import connect_redis
from support.system import eventually

if TYPE_CHECKING:
    from redis import Redis

#: So slow that no time passes, as far as the bucket is concerned, while a test runs.
GLACIAL = 1e-6


def test_a_burst_of_one_second_goes_at_once_and_the_rest_later(valkey: Redis) -> None:
    turn = Pace(valkey, name="p", per_s=100).take([1] * 500)
    # The bucket holds a hundred, and what a slow machine adds while it looks.
    assert 100 <= turn.granted < 200
    assert timedelta(seconds=1) < turn.wait < timedelta(seconds=4)


def test_workers_share_a_bucket(valkey_url: str) -> None:
    def take(_: int) -> int:
        redis = connect_redis(valkey_url)
        try:
            return sum(Pace(redis, name="p", per_s=GLACIAL).take([1]).granted for _ in range(10))
        finally:
            redis.close()

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(take, range(16))) == 1


def test_a_message_of_many_parts_uses_up_as_many_turns(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=10)
    assert pace.take([3, 3, 3, 3, 3]).granted == 4
    assert pace.take([1]).granted == 0


def test_one_that_costs_more_than_the_bucket_holds_goes_all_the_same(valkey: Redis) -> None:
    assert Pace(valkey, name="p", per_s=GLACIAL).take([10]).granted == 1


def test_the_bucket_fills_again(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=50)
    assert pace.take([1] * 1_000).granted < 1_000
    eventually(lambda: pace.take([1]).granted)


def test_providers_have_buckets_of_their_own(valkey: Redis) -> None:
    Pace(valkey, name="p", per_s=GLACIAL).take([1])
    assert Pace(valkey, name="q", per_s=GLACIAL).take([1]).granted == 1


def test_a_provider_that_asks_for_patience_is_left_alone_and_then_spoken_to_half_as_fast(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=1_000)
    pace.slow_down(timedelta(seconds=60))
    turn = pace.take([1])
    assert turn.granted == 0
    assert timedelta(seconds=50) < turn.wait < timedelta(seconds=70)
    valkey.hset("knocktwice:pace:p", "pause", 0)
    assert 450 < pace.take([1] * 2_000).granted < 900


def test_a_whole_batch_of_refusals_slows_down_once(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=1_000)
    for _ in range(20):
        pace.slow_down(timedelta())
    cut = valkey.hget("knocktwice:pace:p", "cut")
    assert cut
    assert float(cut) == 0.5


def test_zero_switches_pacing_off(valkey: Redis) -> None:
    assert Pace(valkey, name="p", per_s=0).take([1] * 500) == Turn(500, timedelta())
    assert not valkey.keys("*pace*")


def test_without_redis_everything_goes() -> None:
    nobody = connect_redis("redis://127.0.0.1:1/0")
    pace = Pace(nobody, name="p", per_s=1)
    pace.slow_down(None)
    assert pace.take([1] * 7).granted == 7
    nobody.close()
