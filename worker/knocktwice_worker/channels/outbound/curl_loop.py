"""The thread that owns libcurl's multi handle: it takes requests from a queue and advances all of them together."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pycurl

from knocktwice_worker.channels.http import NoResponse, Request, Response

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.channels.deadline import Deadline

#: The most requests at once on one HTTP/2 connection, as most servers allow.
_STREAMS = 100
#: The sleep (milliseconds) while libcurl works without a socket to watch.
_BLIND_WAIT_MS = 20
#: Errors before a connection existed, so nothing was sent.
_NEVER_CONNECTED = frozenset(
    {
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_RESOLVE_PROXY,
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
    }
)
_REASONS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the provider's name does not resolve",
    pycurl.E_COULDNT_CONNECT: "the provider refuses connections",
    pycurl.E_OPERATION_TIMEDOUT: "the provider did not answer in time",
    pycurl.E_PEER_FAILED_VERIFICATION: "the provider's certificate is not valid",
    pycurl.E_GOT_NOTHING: "the provider closed the connection without an answer",
    pycurl.E_RECV_ERROR: "the connection broke before the answer",
    pycurl.E_SEND_ERROR: "the connection broke while sending",
    # libcurl's error when it would have to repeat a request that is not repeatable, which we forbid.
    pycurl.E_SEND_FAIL_REWIND: "the provider closed the connection without an answer",
}
_LATE = NoResponse("it was too late to send it", sent=False, late=True)


@dataclass(eq=False, slots=True)
class Batch:
    """The requests of one call and their answers.

    Attributes:
        requests: the requests.
        answers: their answers in the same order; ``None``: not answered yet.
        left: the number of requests without an answer.
        done: set when all requests are answered.
    """

    requests: Sequence[Request]
    answers: list[Response | NoResponse | None]
    left: int
    done: threading.Event = field(default_factory=threading.Event)

    def answer(self, place: int, answer: Response | NoResponse) -> None:
        """Note one answer; with the last one the caller goes on."""
        self.answers[place] = answer
        self.left -= 1
        if not self.left:
            self.done.set()


@dataclass(eq=False, slots=True)
class Transfer:
    """One request under way, with the parts of its answer so far.

    Attributes:
        batch: the batch that the request belongs to.
        place: the place of the request in its batch.
        expires_at: the moment (of the monotonic clock) after which it is not started any more.
        not_after: the deadline for sending its body; ``None``: there is none.
        late: the deadline had passed when libcurl asked for the body.
        body: the parts of the answer's body.
        head: the lines of the answer's head.
    """

    batch: Batch
    place: int
    expires_at: float
    not_after: Deadline | None = None
    late: bool = False
    body: list[bytes] = field(default_factory=list)
    head: list[bytes] = field(default_factory=list)

    @property
    def request(self) -> Request:
        """The request itself."""
        return self.batch.requests[self.place]

    def response(self, status: int) -> Response:
        """Return the whole answer."""
        return Response(status, b"".join(self.body), _Headers(self.head))


class _Body:
    """A body that libcurl reads at the last moment before it is sent, when the connection exists."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._left = io.BytesIO(transfer.request.body)

    def read(self, size: int) -> bytes | int:
        transfer = self._transfer
        if transfer.not_after is not None and not self._left.tell() and transfer.not_after.over:
            transfer.late = True
            return int(pycurl.READFUNC_ABORT)
        return self._left.read(size)


class _Headers(Mapping[str, str]):
    """The headers of an answer, parsed on first use, because hardly any answer's headers are used."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    @cached_property
    def _read(self) -> dict[str, str]:
        pairs = (line.decode("latin-1").partition(":") for line in self._lines)
        return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}

    def __getitem__(self, name: str) -> str:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


class CurlLoop:
    """The thread that owns libcurl.

    All transfers advance together (``curl_multi_perform``). An interface that names the ready socket would not be
    faster: a connection's socket belongs to its hundred streams, and libcurl checks all of them for each event.

    Args:
        waiting: the transfers to be started, in order; others append to it.
        in_flight: the most transfers under way at once.
        new_handle: makes a handle with the settings that all requests share.
    """

    def __init__(self, waiting: deque[Transfer], in_flight: int, new_handle: Callable[[], pycurl.Curl]) -> None:
        self._waiting = waiting
        self._in_flight = in_flight
        self._new_handle = new_handle
        self._free: dict[bool, list[pycurl.Curl]] = {True: [], False: []}
        self._running: dict[pycurl.Curl, Transfer] = {}
        #: The address and headers that a handle was last prepared with; most requests use the same ones.
        self._prepared: dict[pycurl.Curl, tuple[str, Mapping[str, str]]] = {}
        self._stopping = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="knocktwice-http", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look at what waits."""
        # If the pipe is full, the loop is about to wake anyway.
        with contextlib.suppress(BlockingIOError):
            self._ringer.send(b"\0")

    def stop(self) -> None:
        """End the thread. What is under way or waits gets a :class:`NoResponse`."""
        self._stopping = True
        self.wake()
        self._thread.join()

    def _run(self) -> None:
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_PIPELINING, 2)  # multiplex
        multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, _STREAMS)
        multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, self._in_flight)
        multi.setopt(pycurl.M_MAXCONNECTS, self._in_flight)
        try:
            while not self._stopping:
                self._wait(multi)
                multi.perform()
                self._collect(multi)
                while self._waiting and len(self._running) < self._in_flight:
                    self._start(multi, self._waiting.popleft())
        finally:
            lost = NoResponse("the worker is shutting down", sent=True)
            for handle, transfer in self._running.items():
                multi.remove_handle(handle)
                transfer.batch.answer(transfer.place, lost)
            while self._waiting:
                transfer = self._waiting.popleft()
                transfer.batch.answer(transfer.place, NoResponse(lost.reason, sent=False))
            multi.close()
            self._bell.close()
            self._ringer.close()

    def _wait(self, multi: pycurl.CurlMulti) -> None:
        """Sleep until a socket is ready, libcurl wants to be called, or a new request waits."""
        readable, writable, _ = multi.fdset()
        after_ms = multi.timeout()
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        for fd in {*readable, *writable}:
            poll.register(fd, (select.POLLIN if fd in readable else 0) | (select.POLLOUT if fd in writable else 0))
        if self._running and not (readable or writable):
            # A name is being resolved, or the socket's number is above 1023, which libcurl does not report here.
            after_ms = _BLIND_WAIT_MS if after_ms < 0 else min(after_ms, _BLIND_WAIT_MS)
        for fd, _ in poll.poll(None if after_ms < 0 else after_ms):
            if fd == self._bell.fileno():
                self._bell.recv(4096)

    def _start(self, multi: pycurl.CurlMulti, transfer: Transfer) -> None:
        request = transfer.request
        if transfer.not_after is not None and transfer.not_after.over:
            transfer.batch.answer(transfer.place, _LATE)
            return
        if time.monotonic() > transfer.expires_at:
            # The request has waited too long. Answer it now: after the end of its lease the message would be sent
            # twice.
            transfer.batch.answer(transfer.place, NoResponse("the provider is too slow for its queue", sent=False))
            return
        # Two pools of handles, because a handle that once had its body as a whole cannot switch to reading it in
        # pieces.
        free = self._free[request.repeatable]
        try:
            handle = free.pop() if free else self._new_handle()
            self._prepare(handle, request, transfer)
        except (pycurl.error, ValueError, TypeError) as error:
            # One invalid request must not stop the engine.
            answer = NoResponse(f"the request cannot be made ({type(error).__name__})", sent=False)
            transfer.batch.answer(transfer.place, answer)
            return
        self._running[handle] = transfer
        multi.add_handle(handle)

    def _prepare(self, handle: pycurl.Curl, request: Request, transfer: Transfer) -> None:
        url, headers = self._prepared.get(handle, (None, None))
        if url != request.url or headers is not request.headers:
            handle.setopt(pycurl.URL, request.url)
            # The header "Expect: 100-continue" would cost a round trip, so it is removed.
            lines = ["expect:", *(f"{name}: {value}" for name, value in request.headers.items())]
            handle.setopt(pycurl.HTTPHEADER, lines)
            self._prepared[handle] = request.url, request.headers
        if request.method == "GET":
            handle.setopt(pycurl.HTTPGET, 1)
        elif request.repeatable:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDS, request.body)
        else:
            # If a reused connection breaks before the answer, libcurl sends the request again, although the provider
            # may have received the first one. libcurl cannot do that with a body that it cannot rewind.
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDSIZE, len(request.body))
            handle.setopt(pycurl.READFUNCTION, _Body(transfer).read)
        handle.setopt(pycurl.WRITEFUNCTION, transfer.body.append)
        handle.setopt(pycurl.HEADERFUNCTION, transfer.head.append)

    def _collect(self, multi: pycurl.CurlMulti) -> None:
        more = 1
        while more:
            more, succeeded, failed = multi.info_read()
            for handle in succeeded:
                transfer = self._finish(multi, handle)
                transfer.batch.answer(transfer.place, transfer.response(handle.getinfo(pycurl.RESPONSE_CODE)))
            for handle, code, _ in failed:
                transfer = self._finish(multi, handle)
                if transfer.late:
                    transfer.batch.answer(transfer.place, _LATE)
                    continue
                # The size of the request as sent on this transfer, including libcurl's repeats.
                sent = code not in _NEVER_CONNECTED and handle.getinfo(pycurl.REQUEST_SIZE) > 0
                reason = _REASONS.get(code, f"the request failed (libcurl error {code})")
                transfer.batch.answer(transfer.place, NoResponse(reason, sent=sent))

    def _finish(self, multi: pycurl.CurlMulti, handle: pycurl.Curl) -> Transfer:
        multi.remove_handle(handle)
        transfer = self._running.pop(handle)
        self._free[transfer.request.repeatable].append(handle)
        return transfer
