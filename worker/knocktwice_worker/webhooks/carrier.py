"""Sends webhook requests through an HTTP engine of their own, so that they cannot slow down providers' requests."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.webhooks.addresses import is_loopback, is_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.http import NoResponse, Request, Response

#: Seconds an application may take to answer.
TIMEOUT_S = 10.0
_IN_FLIGHT = 100
_MOST_BYTES = 65_536


class Hooks:
    """Sends webhooks.

    Args:
        private: whether names may resolve to private addresses. An endpoint that says itself that it is on this machine
            may be reached either way; a name that merely resolves to it may not.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private

    @cached_property
    def _guarded(self) -> Transport:
        refuse = None if self._private else is_private
        return Transport(timeout=TIMEOUT_S, in_flight=_IN_FLIGHT, refuse=refuse, most_bytes=_MOST_BYTES)

    @cached_property
    def _local(self) -> Transport:
        return Transport(timeout=TIMEOUT_S, in_flight=_IN_FLIGHT, most_bytes=_MOST_BYTES)

    def send(self, requests: Sequence[Request], _not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Send the requests and return their answers in the same order."""
        local = [is_loopback(request.url) for request in requests]
        near = iter(self._local.send([r for r, here in zip(requests, local, strict=True) if here]))
        far = iter(self._guarded.send([r for r, here in zip(requests, local, strict=True) if not here]))
        return [next(near if here else far) for here in local]

    def close(self) -> None:
        """End the engines."""
        for name in ("_guarded", "_local"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()
