"""The request line: paths with escaped slashes, and the methods HEAD and OPTIONS for whatever there is.

An id may hold any character. ASGI servers decode a path before anything looks at its parts, so that ``a%2Fb`` would be
two parts; here the parts are told apart first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes

from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Route

from knocktwice_worker.gateway import problems
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from fastapi import APIRouter
    from starlette.routing import Match
    from starlette.types import ASGIApp, Receive, Scope, Send

#: In the scope of a request: parts of its path are still escaped.
_ESCAPED = "knocktwice.escaped"
#: In the scope of a request: only the head is wanted, so nothing is to be done.
HEAD_ONLY = "knocktwice.head_only"


class RequestLine:
    """ASGI application that makes the request line plain for what stands behind it.

    Args:
        app: what stands behind.
        routers: all that it serves.
    """

    def __init__(self, app: ASGIApp, routers: Sequence[APIRouter]) -> None:
        self._app = app
        self._routes = [route for router in routers for route in router.routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or b""
            if b"%" in raw:
                try:
                    scope = _plain(scope, raw.partition(b"?")[0])
                except Problem as problem:
                    await problem.response()(scope, receive, send)
                    return
            if scope["method"] in ("HEAD", "OPTIONS"):
                found = problems.methods(self._routes, scope["path"])
                if scope["method"] == "OPTIONS" and found:
                    await Response(status_code=204, headers={"Allow": ", ".join(found)})(scope, receive, send)
                    return
                if scope["method"] == "HEAD" and "GET" in found and not self._has_head(scope["path"]):
                    # The server leaves the body out by itself.
                    scope = {**scope, "method": "GET", HEAD_ONLY: True}
        await self._app(scope, receive, send)

    def _has_head(self, path: str) -> bool:
        return any("HEAD" in (route.methods or ()) and route.path_regex.match(path) for route in self._routes)


class WholeParts(APIRoute):
    """A route whose parameters may hold slashes, if these are escaped."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route serves a request, with the parameters of its path."""
        match, child = super().matches(scope)
        return match, unescaped(scope, child, self.param_convertors)


def unescaped(scope: Scope, child: Scope, parameters: Container[str]) -> Scope:
    """Return what a route has matched, with its own parameters decoded.

    Args:
        scope: of the request.
        child: what the route has matched; empty if nothing.
        parameters: the names of its parameters.
    """
    if not scope.get(_ESCAPED) or "path_params" not in child:
        return child
    given: dict[str, Any] = child["path_params"]
    decoded = {
        name: unquote(value) if isinstance(value, str) and name in parameters else value
        for name, value in given.items()
    }
    return {**child, "path_params": decoded}


def _plain(scope: Scope, raw: bytes) -> Scope:
    parts = raw.split(b"/")
    try:
        decoded = [unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError:
        raise Problem("invalid-field", "path: is not UTF-8, percent-encoded", field="path") from None
    if not any("/" in part for part in decoded):
        return scope
    path = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in decoded)
    return {**scope, "path": path, _ESCAPED: True}
