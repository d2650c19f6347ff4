"""From the event loop to a write that blocks: what comes while one is under way waits for it and then goes together.

Nobody gets an answer before their own part is written. A single request is written at once; thousands a second share a
hundred writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from knocktwice_worker.gateway.problems import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")


class GroupCommit(Generic[_T]):
    """Writes what requests bring, one group after the other. Make it inside a running event loop.

    Args:
        write: writes a group durably, or raises what its requests are told; it runs in a thread of its own.
        at_once: items per write.
        most_waiting: items that may wait for their turn; more than that, and what is behind is too slow for what comes
            in.
        apart_s: least time between the beginnings of two writes. Each costs something here, and more where it is read.
    """

    def __init__(
        self, write: Callable[[Sequence[_T]], None], *, at_once: int, most_waiting: int, apart_s: float = 0.0
    ) -> None:
        self._write = write
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._apart_s = apart_s
        self._next_at = 0.0
        self._thread = ThreadPoolExecutor(1, "group-commit")
        self._waiting: deque[tuple[Sequence[_T], asyncio.Future[None]]] = deque()
        self._count = 0
        self._writer: asyncio.Task[None] | None = None

    async def add(self, items: Sequence[_T]) -> None:
        """Return once the items are written.

        Raises:
            Problem: too much is waiting.
        """
        if self._count >= self._most_waiting:
            raise unavailable("more comes in than can be written; slow down")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, written))
        self._count += len(items)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._run())
        await written

    async def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            await self._writer
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self._next_at - loop.time())
            self._next_at = loop.time() + self._apart_s
            group: list[_T] = []
            requests = []
            while self._waiting and len(group) < self._at_once:
                items, written = self._waiting.popleft()
                group += items
                requests.append(written)
            self._count -= len(group)
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._write, group)
            except Exception as failure:  # noqa: BLE001 - raised again in the requests that wait for it
                error = failure
            for written in requests:
                # A request that was given up needs no answer.
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
