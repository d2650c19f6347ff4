"""Bodies: read within their bounds, before anything looks inside."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from knocktwice_worker.gateway.http import json_body
from knocktwice_worker.gateway.http.json_body import DEPTH_LIMIT
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
_UTF_8 = ("utf-8", "utf8", "us-ascii")
#: The longest time in which a body must arrive.
ARRIVAL_S = 10.0


class SizeLimit:
    """ASGI middleware: a body above the limit is refused as soon as that is known, and never kept.

    Args:
        app: what stands behind.
        limit: bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > self._limit:
            # The rest of the body is still on its way; the connection cannot be used again.
            answer = self._too_large()
            answer.headers["Connection"] = "close"
            await answer.response()(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._limit:
                    raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> Problem:
        return Problem("too-large", f"at most {self._limit} bytes are taken; send less at once")


async def read(request: Request, content_type: str) -> bytes:
    """Return the body.

    Args:
        content_type: what it must be.

    Raises:
        Problem: it is something else, too large, or takes too long to arrive.
    """
    given, _, parameters = request.headers.get("content-type", "").partition(";")
    if given.strip().lower() != content_type:
        raise Problem("unsupported-media-type", f"send Content-Type: {content_type}", headers={"Accept": content_type})
    if (charset := _CHARSET.search(parameters)) and charset[1].lower() not in _UTF_8:
        raise Problem("unsupported-media-type", "send UTF-8, and no other charset", headers={"Accept": content_type})
    return await read_any(request)


async def read_any(request: Request) -> bytes:
    """Return the body, whatever type it says it has: other products' clients send JSON under any.

    Raises:
        Problem: it is compressed, too large, or takes too long to arrive.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "send the body as it is, without Content-Encoding")
    try:
        async with asyncio.timeout(ARRIVAL_S):
            return await request.body()
    except TimeoutError:
        raise Problem("too-slow", f"the body must arrive within {ARRIVAL_S:g} seconds") from None


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object. What is in it has still to be checked.

    Raises:
        Problem: as :func:`read`, or it is no JSON object.
    """
    return json_object(await read(request, "application/json"))


def json_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises:
        Problem: it is none, it is ambiguous, or it is nested too deep.
    """
    value = json_body.parse(raw)
    if not isinstance(value, dict):
        raise Problem("invalid-field", "body: must be a JSON object", field="body")
    # Nearly no body has so many brackets; the others are looked through.
    if raw.count(b"{") + raw.count(b"[") > DEPTH_LIMIT:
        _measure(value)
    return value


#: The dependency by which a route in a thread gets its body, a JSON object.
JsonBody = Annotated[dict[str, Any], Depends(read_json)]


def _measure(value: object) -> None:
    left = [(value, 1)]
    while left:
        part, depth = left.pop()
        if depth > DEPTH_LIMIT:
            raise json_body.too_deep()
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        left += ((item, depth + 1) for item in inner if isinstance(item, dict | list))
