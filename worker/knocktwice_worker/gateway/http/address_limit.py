"""ASGI middleware: who asks without a key of an application is counted by address, before anything is done for them.

What one request counts for follows from what it costs: a single receipt is one turn, a body one more for each 4 KB, a
click on a link, which has to be looked up, several. A provider's callback that proves to be genuine counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from knocktwice_worker.content.links import short_links
from knocktwice_worker.content.links.receipt_urls import PATH as RECEIPT
from knocktwice_worker.gateway.http.client_address import FORWARDED
from knocktwice_worker.gateway.log_limit import OncePerMinute
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from knocktwice_worker.gateway.http.address_pace import AddressPace
    from knocktwice_worker.gateway.http.client_address import ClientAddresses

log = structlog.get_logger(__name__)

_LINK, _CALLBACK = short_links.PATH, "/callbacks/"
#: Beginnings of the paths that are counted. Probes are not: a load balancer that is refused takes the gateway for dead.
COUNTED = (RECEIPT, "/v1/receipts", _LINK, _CALLBACK, "/v1/me/", "/gonative/", "/knocktwice")
#: Bytes of a body that cost about as much as a request.
_BYTES = 4_096
#: A link is looked up in PostgreSQL.
_LINK_TURNS = 5


class AddressLimit:
    """Refuses what comes too fast from one address (429).

    Args:
        app: what stands behind.
        addresses: finds whose request it is.
        pace: counts.
        body_limit: bytes of the largest body that is taken.
    """

    def __init__(self, app: ASGIApp, addresses: ClientAddresses, pace: AddressPace, body_limit: int) -> None:
        self._app = app
        self._addresses = addresses
        self._pace = pace
        self._body_limit = body_limit
        self._lines = OncePerMinute()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(COUNTED):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        address = self._addresses.of(scope)
        turns, in_pieces = (1.0, False) if path.startswith(RECEIPT) else self._cost(path, scope)
        try:
            self._pace.enter(address, turns)
        except Problem as problem:
            self._hint(scope)
            if turns > _LINK_TURNS or in_pieces:
                # A body that is still on its way would have to be read to its end.
                problem.headers["Connection"] = "close"
            await problem.response()(scope, receive, send)
            return
        try:
            if in_pieces:
                receive = self._counted(receive, address)
            if path.startswith(_CALLBACK):
                send = self._refunding(send, address, turns)
            await self._app(scope, receive, send)
        finally:
            self._pace.leave(address)

    def _cost(self, path: str, scope: Scope) -> tuple[float, bool]:
        """Return the turns that a request costs, and whether how long its body is shows only as it comes."""
        turns = float(_LINK_TURNS if path.startswith(_LINK) else 1)
        in_pieces = False
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                length = int(value[:20])
                # A larger body is refused unread.
                turns += length // _BYTES if length <= self._body_limit else 0
            elif name == b"transfer-encoding":
                in_pieces = True
        return turns, in_pieces

    def _counted(self, receive: Receive, address: str) -> Receive:
        async def counted() -> Message:
            message = await receive()
            self._pace.charge(address, len(message.get("body", b"")) / _BYTES)
            return message

        return counted

    def _refunding(self, send: Send, address: str, turns: float) -> Send:
        async def refunding(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                self._pace.charge(address, -turns)
            await send(message)

        return refunding

    def _hint(self, scope: Scope) -> None:
        """Log that an address is refused, and the possible causes. The operator has to find out which one it is."""
        forwarded = any(name == FORWARDED for name, _ in scope["headers"])
        if not self._lines.due(str(forwarded)):
            return
        hint = "a proxy that KNOCKTWICE_GATEWAY_PROXIES does not name counts as one client" if forwarded else None
        log.warning("too many requests from one address", **({"hint": hint} if hint else {}))
