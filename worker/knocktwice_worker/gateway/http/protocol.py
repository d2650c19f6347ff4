"""uvicorn's HTTP protocol with bounds that it lacks: how long a request's head may take to arrive, how large it may be,
and how long an answer may wait for somebody to read it.

Without them a client that sends a letter a minute holds a connection for ever, and a few thousand of those hold all.
When nearly all places are taken, those who have no request under way give up theirs, whoever waited longest first:
uvicorn would send away all who come then, and anybody can open two thousand connections.

Java's and Kotlin's clients offer to go on with HTTP/2 in each request without TLS. uvicorn takes that for the end of
the request and loses its body (https://github.com/Kludex/uvicorn/issues/2722). A server may pass over such an offer
(RFC 9110, 7.8), so the head is read again without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: Seconds from a connection's start, or from a request's first byte, to the end of its head.
HEAD_S = 10.0
#: Largest head, in bytes.
HEAD_BYTES = 32_768
#: Longest target of a request (path and query), in bytes.
TARGET_BYTES = 16_384
#: Seconds for which somebody may read nothing while more is to be written than fits into the buffers on the way.
UNREAD_S = 20.0
#: The bytes of a header line beside name and value: colon, blank and line end.
_AROUND_HEADER = 4
#: The share of all places that is kept free if possible.
_ROOM = 0.05


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose request does not get to its body in time."""

    head_s = HEAD_S
    unread_s = UNREAD_S
    _unread: asyncio.TimerHandle | None = None
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _parsed_bytes = 0
    #: Whether the client of a request with an offer wants to go on after it. The parser knows it while it has the head.
    _stays_open = True
    _refusal: Problem | None = None
    _answered: RequestResponseCycle | None = None
    #: Since when no request is under way, by the loop's clock.
    _idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._wait_for_head()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        # uvicorn tells the request that came last. With several on their way that is not the one that is being
        # answered, whose answer would be written to a closed connection.
        self.pipeline.clear()
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
        # It ends the wait of whoever writes, too.
        super().connection_lost(exc)
        self._stop_unread()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._stop_unread()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        self._read(data)
        # The parser says nothing of a line without end. While the head has not ended, all these bytes belong to it.
        if self._timer is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(_head_too_large())

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser did not take: what is no HTTP, or a head of which a callback has refused a part."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refusal)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._parsed_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        super().on_url(url)
        if len(self.url) > TARGET_BYTES:
            self._refusal = Problem("target-too-long", f"path and query may have {TARGET_BYTES} bytes")
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._parsed_bytes += len(name) + len(value) + _AROUND_HEADER
        if self._parsed_bytes + len(self.url) > HEAD_BYTES:
            self._refusal = _head_too_large()
            raise _Refused

    def on_headers_complete(self) -> None:
        """Have the head."""
        if self._is_offer():
            self._stays_open = self.parser.should_keep_alive()
            return
        self._stop_waiting()
        self._idle_since = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Have the whole request."""
        if not self._is_offer():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it is there."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._idle_since = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _read(self, data: bytes) -> None:
        # A view, and a loop: with thousands of small requests in one piece, copies and calls of itself would add up.
        rest = memoryview(data)
        try:
            while rest:
                end_of_head = self._feed(rest)
                if end_of_head is None:
                    return
                rest = rest[end_of_head:]
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")

    def _feed(self, data: memoryview) -> int | None:
        """Parse what has come; return where a head with an offer ends, or ``None`` if there is none."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._is_offer():
                raise httptools.HttpParserError("a tunnel") from upgrade
            return int(upgrade.args[0])
        return None

    def _is_offer(self) -> bool:
        # The parser means a tunnel, too, which nobody offers but asks for.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_offer(self) -> bytes:
        offer = (b"upgrade", b"http2-settings", b"connection")
        kept = [(name, value) for name, value in self.headers if name not in offer]
        kept.append((b"connection", b"keep-alive" if self._stays_open else b"close"))
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version), *(b"%b: %b" % one for one in kept)]
        return b"\r\n".join([*lines, b"", b""])

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _make_room(self) -> None:
        limit = self.limit_concurrency
        if limit is None or len(self.connections) <= limit * (1 - _ROOM):
            return
        idle = [
            (one._idle_since, n, one)
            for n, one in enumerate(self.connections)
            if isinstance(one, BoundedHttpProtocol) and one._idle_since is not None and one is not self
        ]
        # Many at once, as looking for them takes long.
        for _, _, one in sorted(idle)[: math.ceil(limit * _ROOM)]:
            # It counts as gone at once, not when the loop gets to it: many may come in one turn of it.
            self.connections.discard(one)
            one._give_up()

    def _refuse(self, problem: Problem) -> None:
        """Answer before there is a request that the application could answer, and close the connection."""
        self._stop_waiting()
        if self._answered is None or self._answered.response_complete:
            response = problem.response()
            headers = [*response.raw_headers, (b"connection", b"close")]
            lines = [STATUS_LINE[problem.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
            self.transport.write(b"".join(lines) + bytes(response.body))
        self.transport.close()

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.close()


class _Refused(Exception):
    """Ends the parser's work on a head."""


def _head_too_large() -> Problem:
    return Problem("head-too-large", f"the request line and all headers together may have {HEAD_BYTES} bytes")
