"""Requests per client address, for what needs no key: counted in this process alone, in microseconds.

A request of a stranger must not cost a round trip to Redis, or refusing it would cost what it is refused for. So each
process counts for itself, and several allow as many times more. What is kept of an address is one number, the moment at
which it will have paid for everything (the generic cell rate algorithm), and only until then.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds of requests that may come at once, as when a blast reaches the phones of a carrier that has few addresses.
BURST_S = 5.0
#: Requests of one address that may be served at the same time: a quarter of all that one process serves.
AT_ONCE = 500
#: Addresses that are remembered at the most, a few megabytes.
MOST = 50_000


class AddressPace:
    """Limits the pace of each address.

    Args:
        per_s: requests per second.
        clock: seconds that never go backwards.
        whose: what is counted, for people.
    """

    def __init__(
        self, per_s: float, clock: Callable[[], float] = time.monotonic, *, whose: str = "one address"
    ) -> None:
        self._whose = whose
        self._per_s = per_s
        self._clock = clock
        self._paid_at: dict[str, float] = {}
        self._served: dict[str, int] = {}

    def enter(self, address: str, turns: float = 1) -> None:
        """Begin to serve a request; :meth:`leave` ends it.

        Args:
            turns: how many requests it counts for. It may be more than there are left, and is then paid for afterwards.

        Raises:
            Problem: there is no turn left, or too many requests are being served.
        """
        now = self._clock()
        owed = self._paid_at.get(address, now) - now
        if owed > BURST_S:
            raise _too_many(
                f"send fewer requests; {self._per_s:g} a second are taken from {self._whose}", owed - BURST_S
            )
        served = self._served.get(address, 0)
        if served >= AT_ONCE:
            raise _too_many(f"wait for answers; {AT_ONCE} requests at once are taken from {self._whose}", 1)
        self._served[address] = served + 1
        self._charge(address, turns, now)

    def leave(self, address: str) -> None:
        """End what :meth:`enter` has begun."""
        served = self._served.get(address, 0) - 1
        if served > 0:
            self._served[address] = served
        else:
            self._served.pop(address, None)

    def charge(self, address: str, turns: float) -> None:
        """Let a request that is being served count for more, or for less than nothing."""
        self._charge(address, turns, self._clock())

    @property
    def remembered(self) -> int:
        """The number of addresses that are kept."""
        return len(self._paid_at)

    def _charge(self, address: str, turns: float, now: float) -> None:
        paid_at = self._paid_at
        if len(paid_at) >= MOST and address not in paid_at:
            self._forget(now)
        paid_at[address] = max(paid_at.get(address, now), now) + turns / self._per_s

    def _forget(self, now: float) -> None:
        """Make room: who owes nothing counts like somebody new. If nearly all owe something, everybody starts anew."""
        owing = {address: at for address, at in self._paid_at.items() if at > now}
        self._paid_at = owing if len(owing) <= MOST // 2 else {}


def _too_many(detail: str, wait_s: float) -> Problem:
    return Problem("too-many-requests", detail, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})
