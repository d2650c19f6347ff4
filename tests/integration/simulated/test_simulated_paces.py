"""A pace in a simulated day lets as many go, as late, as the pace of workers does by the clock of Redis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.pacing import Lane, Pace
from knocktwice_worker.simulated import paces
from support.redis_clock import RedisClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

SECOND = timedelta(seconds=1)
#: What waits at first, second by second what joins it, and what each costs.
JOINS = {0: [1] * 40, 3: [2] * 10, 12: [1] * 5}


def _gone(pace: Pace, pass_: Callable[[timedelta], None], step: timedelta) -> list[int]:
    """Return how many have gone after each second, while one looks once in a step."""
    waiting: list[tuple[int, int]] = []
    gone: list[int] = []
    for second in range(24):
        waiting += [(cost, second) for cost in JOINS.get(second, ())]
        if second % step.total_seconds() == 0 and waiting:
            entitled = sum(since < second for _, since in waiting)
            granted = pace.take([cost for cost, _ in waiting], Lane.SINGLES, entitled=entitled).granted
            waiting = waiting[granted:]
        gone.append(sum(len(own) for at, own in JOINS.items() if at <= second) - len(waiting))
        pass_(SECOND)
    return gone


def test_as_many_go_as_by_the_pace_of_workers(valkey: Redis) -> None:
    clock = RedisClock(valkey)
    real = _gone(Pace(valkey, name="p", per_s=5), clock.advance, SECOND)
    now = datetime(2026, 11, 27, tzinfo=UTC)

    def simulated(step: timedelta) -> list[int]:
        at = now
        paces.tell(valkey, at)

        def pass_(by: timedelta) -> None:
            nonlocal at
            at += by
            paces.tell(valkey, at)

        return _gone(paces.pace(valkey, name=f"q{step}", per_s=5, step=step), pass_, step)

    # The real clock goes on by a moment while the script runs, which may be worth one message.
    assert all(abs(one - other) <= 1 for one, other in zip(real, simulated(SECOND), strict=True))
    assert real[-1] == 55
    slow = simulated(4 * SECOND)
    # Who looks once in four seconds finds what could have gone in these four.
    assert all(one - 5 * 4 - 1 <= other <= one + 5 * 4 + 1 for one, other in zip(real, slow, strict=True))
    assert slow[-1] == 55
