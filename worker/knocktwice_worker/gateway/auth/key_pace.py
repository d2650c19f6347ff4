"""Requests per key: one bucket in Redis for all gateways, asked for a handful of turns at a time.

A process that asked Redis for each request would spend more on counting than on the requests. It takes turns for a
twentieth of a second instead; and who has been told to wait is told again without asking.
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.pacing import Lane, Pace
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services

#: For how many seconds of requests turns are taken at once.
_AHEAD_S = 0.05
#: Turns that were not used are void after so many seconds.
_VOID_AFTER_S = 1.0


@dataclass(slots=True)
class _Purse:
    pace: Pace
    turns: int = 0
    void_at: float = 0.0
    closed_until: float = 0.0


class KeyPace:
    """Limits the pace at which each key may be used.

    Args:
        services: where the buckets are, and the setting.
        clock: seconds that never go backwards.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._per_s = services.settings.gateway_per_s
        self._clock = clock
        # One for each key that works, and of those there is a limited number.
        self._purses: dict[str, _Purse] = {}
        # Not one of those that requests share, which may all wait for the database.
        self._thread = ThreadPoolExecutor(1, "pace")

    async def take(self, key_id: str) -> None:
        """Take a turn.

        Raises:
            Problem: there is none now; when, is said.
        """
        if not self._per_s:
            return
        purse = self._purses.get(key_id) or self._purses.setdefault(key_id, _Purse(self._pace(key_id)))
        now = self._clock()
        if purse.turns <= 0 or now > purse.void_at:
            if now < purse.closed_until:
                raise _too_many(purse.closed_until - now)
            await self._fill(purse)
        purse.turns -= 1

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown()

    async def _fill(self, purse: _Purse) -> None:
        wanted = max(1, math.ceil(self._per_s * _AHEAD_S))
        turn = await asyncio.get_running_loop().run_in_executor(self._thread, purse.pace.take, [1] * wanted, Lane.NONE)
        now = self._clock()
        # Others may have filled it meanwhile.
        purse.turns = turn.granted + (purse.turns if now <= purse.void_at else 0)
        purse.void_at = now + _VOID_AFTER_S
        if purse.turns <= 0:
            wait = min(turn.waits[0].total_seconds(), 1 / self._per_s)
            purse.closed_until = now + wait
            raise _too_many(wait)

    def _pace(self, key_id: str) -> Pace:
        return Pace(self._services.redis, name=f"key:{key_id}", per_s=self._per_s)


def _too_many(wait_s: float) -> Problem:
    after = str(max(1, math.ceil(wait_s)))
    return Problem("too-many-requests", "send fewer requests, or more in each", headers={"Retry-After": after})
