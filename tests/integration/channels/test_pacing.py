"""All workers together keep a provider's pace, by the clock of Redis; what has no turn asks again."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.channels.outbound.pacing import Lane, Pace, Turn
from knocktwice_worker.embedded.installation import connect_redis
from support.redis_clock import RedisClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
#: A pause that is over before anybody asks.
MOMENT = timedelta(microseconds=1)
#: So slow that no time passes, as far as the bucket is concerned, while a test runs.
GLACIAL = 1e-6


def test_a_burst_of_one_second_goes_at_once_and_the_rest_later(valkey: Redis) -> None:
    turn = Pace(valkey, name="p", per_s=100).take([1] * 500)
    # The script looks at the clock once, so how fast the machine is does not matter. A message may overdraw the bucket.
    assert turn.granted in {100, 101}
    assert len(turn.waits) == 500 - turn.granted
    assert timedelta(0) <= turn.waits[0] <= timedelta(seconds=0.011)
    assert timedelta(seconds=3.97) < turn.waits[-1] < timedelta(seconds=4)
    assert sorted(turn.waits) == list(turn.waits)


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
    # The third overdraws what is left, by far more than a slow machine takes for the rest of this test.
    assert pace.take([4, 4, 40_000, 4]).granted == 3
    assert pace.take([1]).granted == 0


def test_one_that_costs_more_than_the_bucket_holds_goes_all_the_same(valkey: Redis) -> None:
    assert Pace(valkey, name="p", per_s=GLACIAL).take([10]).granted == 1


def test_the_bucket_fills_again_with_what_a_second_brings_and_no_more(valkey: Redis) -> None:
    pace, clock = Pace(valkey, name="p", per_s=10), RedisClock(valkey)
    assert pace.take([1] * 1_000).granted in {10, 11}
    assert pace.take([1], Lane.NONE).granted == 0
    clock.advance(SECOND / 2)
    assert pace.take([1] * 1_000, Lane.NONE).granted in {5, 6}
    clock.advance(60 * SECOND)
    assert pace.take([1] * 1_000, Lane.NONE).granted in {10, 11}


def test_providers_have_buckets_of_their_own(valkey: Redis) -> None:
    Pace(valkey, name="p", per_s=GLACIAL).take([1])
    assert Pace(valkey, name="q", per_s=GLACIAL).take([1]).granted == 1


def test_a_provider_that_asks_for_patience_is_left_alone_and_then_spoken_to_half_as_fast(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=1_000)
    pace.slow_down(timedelta(seconds=60))
    turn = pace.take([1])
    assert turn.granted == 0
    assert 50 * SECOND < turn.waits[0] <= 60 * SECOND
    clock = RedisClock(valkey)
    clock.advance(49 * SECOND)
    assert pace.take([1], Lane.NONE).granted == 0
    # The pace recovers with the seconds, also during the pause: it is over, and the rate is whole again.
    clock.advance(12 * SECOND)
    assert pace.take([1] * 5_000).granted in {1_000, 1_001}


@pytest.mark.parametrize(("seconds", "share"), [(0, 0.5), (5, 2**-0.5), (10, 1), (60, 1)])
def test_a_pace_that_was_halved_doubles_in_ten_seconds(valkey: Redis, seconds: int, share: float) -> None:
    pace = Pace(valkey, name="p", per_s=1_000)
    pace.slow_down(MOMENT)
    RedisClock(valkey).advance(seconds * SECOND + MOMENT)
    assert 1_000 * share <= pace.take([1] * 5_000).granted <= 1_000 * share * 1.1 + 1


def test_who_asks_for_patience_again_and_again_is_spoken_to_ever_more_slowly(valkey: Redis) -> None:
    pace, clock = Pace(valkey, name="p", per_s=1_000), RedisClock(valkey)
    for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 64):
        pace.slow_down(MOMENT)
        cut = float(valkey.hget("knocktwice:pace:p", "cut") or 0)
        # Something of the second between two of them is recovered.
        assert share <= cut <= min(share * 1.6, 1 / 2)
        clock.advance(1.001 * SECOND)


def test_a_refusal_that_names_no_time_pauses_for_a_second(valkey: Redis) -> None:
    pace, clock = Pace(valkey, name="p", per_s=GLACIAL), RedisClock(valkey)
    pace.slow_down(None)
    clock.advance(SECOND / 2)
    assert pace.take([1]).granted == 0
    clock.advance(SECOND)
    assert pace.take([1], Lane.NONE).granted == 1


def test_until_when_a_provider_wants_nothing_is_known(valkey: Redis) -> None:
    pace, clock = Pace(valkey, name="p", per_s=10), RedisClock(valkey)
    assert pace.paused_until() is None
    pace.slow_down(60 * SECOND)
    until = pace.paused_until()
    assert until
    assert 50 * SECOND < until - datetime.now(UTC) <= 60 * SECOND
    clock.advance(61 * SECOND)
    assert pace.paused_until() is None


def test_a_bucket_is_kept_for_longer_than_anybody_waits_for_it_and_then_forgotten(valkey: Redis) -> None:
    pace, clock = Pace(valkey, name="p", per_s=1), RedisClock(valkey)
    pace.slow_down(3 * HOUR)
    clock.advance(3 * HOUR - SECOND)
    assert pace.take([1]).granted == 0
    clock.advance(2 * HOUR)
    assert not valkey.keys("*")
    waits = pace.take([1] * 20_000).waits
    clock.advance(waits[-1] - SECOND)
    assert valkey.keys("*")
    clock.advance(2 * HOUR)
    assert not valkey.keys("*")


def test_the_last_of_a_batch_that_asks_too_early_is_told_when_to_come_back(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=0.01)
    first = pace.take([2] * 6)
    assert first.granted == 1
    steps = [later - sooner for sooner, later in itertools.pairwise(first.waits)]
    assert all(199 * SECOND < step < 201 * SECOND for step in steps)
    # Who comes later stands behind them, and who has waited stands before.
    (behind,) = pace.take([1]).waits
    assert behind > first.waits[-1] + 190 * SECOND
    (before,) = pace.take([1], entitled=1).waits
    assert before <= first.waits[0]


def test_two_queues_get_half_of_a_pace_each(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=0.01)
    blast = pace.take([1] * 10, Lane.BLASTS)
    assert blast.granted == 1
    singles = pace.take([1] * 4).waits
    assert all(199 * SECOND < later - sooner < 201 * SECOND for sooner, later in itertools.pairwise(singles))
    # The blast has half a pace, too, as long as somebody waits beside it.
    more = pace.take([1] * 3, Lane.BLASTS).waits
    assert all(199 * SECOND < later - sooner < 201 * SECOND for sooner, later in itertools.pairwise(more))


def test_a_whole_batch_of_refusals_slows_down_once(valkey: Redis) -> None:
    pace = Pace(valkey, name="p", per_s=1_000)
    for _ in range(20):
        pace.slow_down(timedelta())
    cut = valkey.hget("knocktwice:pace:p", "cut")
    assert cut
    assert float(cut) == 0.5


def test_zero_switches_pacing_off(valkey: Redis) -> None:
    assert Pace(valkey, name="p", per_s=0).take([1] * 500) == Turn(500)
    assert not valkey.keys("*pace*")


def test_without_redis_everything_goes() -> None:
    nobody = connect_redis("redis://127.0.0.1:1/0")
    pace = Pace(nobody, name="p", per_s=1)
    pace.slow_down(None)
    assert pace.take([1] * 7).granted == 7
    nobody.close()


#: Seconds between two looks at what is due, as the dispatcher's tick.
TICK_S = 0.5


class Line:
    """Messages that wait for a pace, each asking again when it was told to, in a time of their own."""

    def __init__(self, redis: Redis, per_s: float) -> None:
        self.pace = Pace(redis, name="p", per_s=per_s)
        self.now = 0.0
        self.asked = 0
        self._clock = RedisClock(redis)
        self._waiting: list[tuple[float, str, Lane, bool]] = []
        self.went: dict[str, float] = {}

    def join(self, names: Iterable[str], lane: Lane = Lane.SINGLES) -> None:
        self._waiting += [(self.now, name, lane, False) for name in names]

    def run(self, until: float) -> None:
        while self._waiting and self.now < until:
            due = sorted(one for one in self._waiting if one[0] <= self.now)
            self._waiting = [one for one in self._waiting if one[0] > self.now]
            for lane in Lane:
                own = sorted((one for one in due if one[2] is lane), key=lambda one: not one[3])
                turn = self.pace.take([1] * len(own), lane, entitled=sum(one[3] for one in own))
                self.asked += len(own)
                self.went |= {name: self.now for _, name, _, _ in own[: turn.granted]}
                for (_, name, _, _), wait in zip(own[turn.granted :], turn.waits, strict=True):
                    self._waiting.append((self.now + wait.total_seconds(), name, lane, True))
            self.now += TICK_S
            self._clock.advance(timedelta(seconds=TICK_S))


def test_a_pace_is_used_and_not_only_kept(valkey: Redis) -> None:
    line = Line(valkey, per_s=5)
    line.join(f"m{n}" for n in range(60))
    line.run(until=60)
    assert len(line.went) == 60
    assert max(line.went.values()) <= 12.5
    assert line.asked < 4 * 60


def test_a_pace_is_used_by_many_batches_that_do_not_know_of_each_other(valkey: Redis) -> None:
    line = Line(valkey, per_s=5)
    for batch in range(10):
        line.join(f"b{batch}-{n}" for n in range(60))
        line.run(until=line.now + TICK_S)
    line.run(until=300)
    assert len(line.went) == 600
    assert max(line.went.values()) <= 600 / 5 * 1.1
    assert line.asked < 4 * 600
    first, last = (sum(at for name, at in line.went.items() if name.startswith(f"b{b}-")) / 60 for b in (0, 9))
    assert first < last / 4


def test_single_messages_share_a_pace_with_a_blast_and_critical_ones_overtake_both(valkey: Redis) -> None:
    line = Line(valkey, per_s=5)
    line.join((f"blast{n}" for n in range(400)), Lane.BLASTS)
    line.run(until=10)
    line.join(f"single{n}" for n in range(20))
    line.join(["critical"], Lane.NONE)
    line.run(until=200)
    assert line.went["critical"] - 10 <= 1
    assert max(at for name, at in line.went.items() if name.startswith("single")) - 10 <= 20 / 2.5 * 1.3
    assert len(line.went) == 421
    assert max(line.went.values()) <= 421 / 5 * 1.15
