"""Pages of other origins (CORS): which may call the routes for apps and pages, and what browsers are told about it.

Without a setting no page may. What counts is the token in the header ``Authorization``; cookies are never let through
from another origin, because no answer says ``Access-Control-Allow-Credentials``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The beginning of the paths that pages may call.
OPEN = "/v1/me/"
#: For how many seconds a browser may remember that it may call.
_REMEMBER_S = b"600"
_METHODS = b"GET, PUT, POST, DELETE"
_REQUEST_HEADERS = b"authorization, content-type"


class Origins:
    """ASGI middleware.

    Args:
        app: what stands behind.
        allowed: the origins that may call.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(origin.encode() for origin in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(OPEN):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin: bytes = headers.get(b"origin", b"")
        allowed = origin in self._allowed
        if allowed and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _answer_preflight(origin, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A cache must not give one page's answer to another page.
                added = [(b"vary", b"Origin")]
                if allowed:
                    added += [
                        (b"access-control-allow-origin", origin),
                        (b"access-control-expose-headers", b"Retry-After"),
                    ]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        await self._app(scope, receive, sending)


async def _answer_preflight(origin: bytes, send: Send) -> None:
    headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _REQUEST_HEADERS),
        (b"access-control-max-age", _REMEMBER_S),
        (b"vary", b"Origin"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})
