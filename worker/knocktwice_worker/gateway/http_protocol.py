"""uvicorn's HTTP protocol with bounds that it lacks: how long a request's head may take to arrive, and how large it may be.

Without them a client that sends a letter a minute holds a connection for ever, and a few thousand of those hold all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

#: Seconds from a connection's start, or from a request's first byte, to the end of its head.
HEAD_S = 10.0
#: Largest head, in bytes, give or take one read from the socket.
HEAD_BYTES = 32_768


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose request does not get to its body in time."""

    head_s = HEAD_S
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()
        # What came before, so that a body that comes along with its head does not count.
        if self._timer is not None and self._head_bytes > HEAD_BYTES:
            self._give_up()
            return
        self._head_bytes += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Have the head."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.close()
