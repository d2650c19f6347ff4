"""A pile of items that a few threads of a pool process in groups, which grow with the load."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

#: Groups that one worker processes at once: one is prepared while the other waits for the provider. More groups would
#: only be smaller.
_THREADS = 2
#: Seconds that a thread rests after a group. Without the rest, the next group under load would be small and cost nearly
#: as much as a large one. The rest is shorter than a provider's answer.
_REST_S = 0.1


class Pile:
    """Items that wait for a thread.

    Args:
        work: processes a group.
        weigh: returns the size of an item.
        start: runs a function in a thread of the pool.
        threads: the most groups processed at once.
        most: the greatest total weight of a group; a single heavier item goes alone.
        rest_s: seconds that a thread rests after a group. It does not rest if no item waits, or enough for a whole
            group.
        patient: whether a thread also rests before its first group, because nobody waits for the result.
    """

    def __init__(
        self,
        work: Callable[[list[Any]], None],
        weigh: Callable[[Any], int],
        start: Callable[[Callable[[], None]], object],
        *,
        threads: int = _THREADS,
        most: int = BATCH_LIMIT,
        rest_s: float = _REST_S,
        patient: bool = False,
    ) -> None:
        self._work = work
        self._weigh = weigh
        self._start = start
        self._most = most
        self._free = threads
        self._rest_s = rest_s
        self._patient = patient
        #: Whether a thread rests before its first group. It takes what comes meanwhile, so no other thread is started.
        self._collecting = False
        self._lock = threading.Condition()
        self._waiting: deque[tuple[Any, int]] = deque()
        self._piled = 0

    def add(self, item: Any) -> None:
        """Have an item processed, together with the others that wait by then."""
        weight = self._weigh(item)
        with self._lock:
            self._waiting.append((item, weight))
            self._piled += weight
            if not self._free or self._collecting:
                if self._piled >= self._most:
                    self._lock.notify()
                return
            self._free -= 1
            self._collecting = self._patient
        try:
            self._start(self._run)
        except BaseException:
            with self._lock:
                self._free += 1
                self._collecting = False
            raise

    def _run(self) -> None:
        if self._patient:
            self._rest()
            with self._lock:
                self._collecting = False
        while group := self._take():
            try:
                self._work(group)
            except Exception as error:  # noqa: BLE001 - a boundary
                # An error must not leave this loop, or the thread would count as busy for ever. The group's messages
                # are not acknowledged, so they come again.
                log.error("a group was left behind", messages=len(group), error=type(error).__name__)
            self._rest()

    def _rest(self) -> None:
        with self._lock:
            if self._waiting:
                self._lock.wait_for(lambda: self._piled >= self._most, self._rest_s)

    def _take(self) -> list[Any]:
        """Return the next group. If it is empty, this thread counts as free from now on."""
        taken: list[Any] = []
        size = 0
        with self._lock:
            while self._waiting and (not taken or size + self._waiting[0][1] <= self._most):
                item, weight = self._waiting.popleft()
                taken.append(item)
                size += weight
            self._piled -= size
            if not taken:
                self._free += 1
        return taken
