"""Clients that cost next to nothing: requests written beforehand, over connections that stay open, answers read no
further than needed.

A usual HTTP client spends more on a request than the gateway does; then it is the client that is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Answers:
    """How requests were answered.

    Attributes:
        statuses: how many of each.
        wall_s: from the first request to the last answer.
        cpu_s: what the clients themselves spent.
    """

    statuses: Counter[int]
    wall_s: float
    cpu_s: float


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Write an HTTP/1.1 request down."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def send(port: int, requests: Iterable[bytes], *, connections: int = 64) -> Answers:
    """Send all requests to 127.0.0.1, each connection one after the other, and return once all are answered.

    Raises:
        ConnectionError: the server closed a connection.
    """
    waiting = deque(requests)
    cpu, start = time.process_time(), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        statuses = runner.run(_send_all(port, waiting, min(connections, len(waiting))))
    return Answers(statuses, time.perf_counter() - start, time.process_time() - cpu)


async def _send_all(port: int, waiting: deque[bytes], connections: int) -> Counter[int]:
    loop = asyncio.get_running_loop()
    statuses: Counter[int] = Counter()
    clients = [
        (await loop.create_connection(lambda: _Client(waiting, statuses), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*[client.done for client in clients])
    return statuses


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, waiting: deque[bytes], statuses: Counter[int]) -> None:
        self._waiting, self._statuses = waiting, statuses
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_HEAD_END)
        if end < 0 or len(self._received) < end + len(_HEAD_END) + _length(self._received[:end]):
            return
        self._statuses[int(self._received[9:12])] += 1
        self._received = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        if self._waiting:
            self._transport.write(self._waiting.popleft())
        else:
            self.done.set_result(None)
            self._transport.close()


def _length(head: bytes) -> int:
    _, _, rest = head.partition(b"content-length:")
    return int(rest.partition(b"\r")[0] or 0)
