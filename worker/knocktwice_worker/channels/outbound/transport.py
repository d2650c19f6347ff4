"""The HTTP engine: one libcurl loop per worker process sends the requests of all tasks side by side.

Task threads give whole batches to the loop's thread (``curl_loop.py``) and wait. HTTP/2 is used if the provider supports
it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import certifi
import pycurl

from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.outbound.curl_loop import Batch, CurlLoop, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice_worker.channels.deadline import Deadline

#: A connection that was idle for longer (seconds) is not used again, because the provider may be closing it.
_IDLE_LIMIT_S = 50


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
        self._waiting: deque[Transfer] = deque()
        self._loop: CurlLoop | None = None
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
        batch = Batch(requests, [None] * len(requests), len(requests))
        expires_at = time.monotonic() + self._timeout_ms / 1000
        with self._lock:
            if self._closed:
                return [NoResponse("the worker is shutting down", sent=False)] * len(requests)
            if self._loop is None:
                self._loop = CurlLoop(self._waiting, self._in_flight, self._handle)
            self._waiting.extend(Transfer(batch, place, expires_at, not_after) for place in range(len(requests)))
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
