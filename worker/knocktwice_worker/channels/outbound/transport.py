"""The HTTP engine: one libcurl loop per worker process sends the requests of all tasks side by side.

One thread owns libcurl's multi handle. Task threads give it whole batches and wait. HTTP/2 is used if the provider
supports it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import certifi
import pycurl

from knocktwice_worker.channels.http import NoResponse, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.channels.deadline import Deadline

#: The most requests at once on one HTTP/2 connection, as most servers allow.
_STREAMS = 100
#: A connection that was idle for longer (seconds) is not used again, because the provider may be closing it.
_IDLE_LIMIT_S = 50
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
class _Batch:
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
        self.answers[place] = answer
        self.left -= 1
        if not self.left:
            self.done.set()


@dataclass(eq=False, slots=True)
class _Transfer:
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

    batch: _Batch
    place: int
    expires_at: float
    not_after: Deadline | None = None
    late: bool = False
    body: list[bytes] = field(default_factory=list)
    head: list[bytes] = field(default_factory=list)

    @property
    def request(self) -> Request:
        return self.batch.requests[self.place]

    def response(self, status: int) -> Response:
        return Response(status, b"".join(self.body), _Headers(self.head))


class _Body:
    """A body that libcurl reads at the last moment before it is sent, when the connection exists."""

    def __init__(self, transfer: _Transfer) -> None:
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


class Transport:
    """Sends batches of requests. Threads may share it; a forked child needs its own.

    Nothing is started before the first call. Proxy settings of the environment (``https_proxy``, ``no_proxy``) are
    respected; certificates are verified with certifi's list.

    Args:
        timeout: the seconds that one request may take, and the seconds that it may wait for its turn before that.
        in_flight: the most requests under way at once; other requests wait.
        ca_file: certificates to trust instead of certifi's.
        refuse: returns whether an IP address (as text, after the name was resolved) must not be connected to. With it
            no proxy is used, because a proxy would connect to any address.
        most_bytes: the longest answer that is read.
    """

    def __init__(
        self,
        *,
        timeout: float,
        in_flight: int,
        ca_file: str | None = None,
        refuse: Callable[[str], bool] | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self._refuse = refuse
        self._most_bytes = most_bytes
        self._timeout_ms = int(timeout * 1000)
        self._in_flight = in_flight
        self._ca_file = ca_file or certifi.where()
        self._lock = threading.Lock()
        self._waiting: deque[_Transfer] = deque()
        self._loop: _Loop | None = None
        self._closed = False

    def send(self, requests: Sequence[Request], not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Send the requests side by side and return their answers in the same order.

        Never raises for network errors: the answer is then a :class:`NoResponse`.

        Args:
            not_after: a request whose body has not left before this deadline is not sent. The deadline is checked at
                the last moment before the bytes go, because a process can be suspended for a minute between any two
                lines.
        """
        if not requests:
            return []
        batch = _Batch(requests, [None] * len(requests), len(requests))
        expires_at = time.monotonic() + self._timeout_ms / 1000
        with self._lock:
            if self._closed:
                return [NoResponse("the worker is shutting down", sent=False)] * len(requests)
            if self._loop is None:
                self._loop = _Loop(self._waiting, self._in_flight, self._handle)
            self._waiting.extend(_Transfer(batch, place, expires_at, not_after) for place in range(len(requests)))
            self._loop.wake()
        batch.done.wait()
        return [answer for answer in batch.answers if answer is not None]

    def close(self) -> None:
        """End the engine. Requests under way get a :class:`NoResponse`."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    def _handle(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        handle.setopt(pycurl.NOSIGNAL, 1)
        # As bytes, because pycurl accepts only ASCII as text, and the path of the virtual environment may have other
        # letters.
        handle.setopt(pycurl.CAINFO, os.fsencode(self._ca_file))
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        # Wait for a connection that can be shared, rather than open a new one for each request.
        handle.setopt(pycurl.PIPEWAIT, 1)
        handle.setopt(pycurl.MAXAGE_CONN, _IDLE_LIMIT_S)
        handle.setopt(pycurl.TIMEOUT_MS, self._timeout_ms)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, self._timeout_ms)
        # No redirects: a redirect could send credentials and numbers to any address.
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.NOPROXY, ",".join(filter(None, ("localhost,127.0.0.1,::1", os.environ.get("no_proxy")))))
        if self._most_bytes is not None:
            handle.setopt(pycurl.MAXFILESIZE, self._most_bytes)
        if self._refuse is not None:
            handle.setopt(pycurl.NOPROXY, "*")
            handle.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        return handle

    def _open(self, _purpose: int, address: tuple[int, int, int, tuple[Any, ...]]) -> socket.socket | int:
        """Open a socket, unless its address is refused. The name is resolved already, so it cannot change."""
        family, kind, protocol, (host, *_) = address
        text = host.decode() if isinstance(host, bytes) else str(host)
        if self._refuse is not None and self._refuse(text):
            return int(pycurl.SOCKET_BAD)
        return socket.socket(family, kind, protocol)


class _Loop:
    """The thread that owns libcurl.

    All transfers advance together (``curl_multi_perform``). An interface that names the ready socket would not be
    faster: a connection's socket belongs to its hundred streams, and libcurl checks all of them for each event.
    """

    def __init__(self, waiting: deque[_Transfer], in_flight: int, new_handle: Callable[[], pycurl.Curl]) -> None:
        self._waiting = waiting
        self._in_flight = in_flight
        self._new_handle = new_handle
        self._free: dict[bool, list[pycurl.Curl]] = {True: [], False: []}
        self._running: dict[pycurl.Curl, _Transfer] = {}
        #: The address and headers that a handle was last prepared with; most requests use the same ones.
        self._prepared: dict[pycurl.Curl, tuple[str, Mapping[str, str]]] = {}
        self._stopping = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="knocktwice-http", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        # If the pipe is full, the loop is about to wake anyway.
        with contextlib.suppress(BlockingIOError):
            self._ringer.send(b"\0")

    def stop(self) -> None:
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

    def _start(self, multi: pycurl.CurlMulti, transfer: _Transfer) -> None:
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

    def _prepare(self, handle: pycurl.Curl, request: Request, transfer: _Transfer) -> None:
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
                # The size of the request as sent on this transfer, including libcurl's repeats.
                if transfer.late:
                    transfer.batch.answer(transfer.place, _LATE)
                    continue
                sent = code not in _NEVER_CONNECTED and handle.getinfo(pycurl.REQUEST_SIZE) > 0
                reason = _REASONS.get(code, f"the request failed (libcurl error {code})")
                transfer.batch.answer(transfer.place, NoResponse(reason, sent=sent))

    def _finish(self, multi: pycurl.CurlMulti, handle: pycurl.Curl) -> _Transfer:
        multi.remove_handle(handle)
        transfer = self._running.pop(handle)
        self._free[transfer.request.repeatable].append(handle)
        return transfer
