"""The fast path past the framework for the two most frequent requests: one receipt, and one notification.

What FastAPI does for a request (finding the route among all, resolving dependencies, layers of middleware) costs
several times what these requests need. Their routes are there all the same, for the document and for every other
method; what cannot be served here goes on to them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from knocktwice_worker.content.links.receipt_urls import PATH
from knocktwice_worker.gateway import problems
from knocktwice_worker.gateway.routes import notifications, receipts

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send


class FastPath:
    """ASGI application. It stands behind what bounds a body, and before the framework and all its layers.

    Args:
        app: what serves all other requests.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        # A client that hangs up in the middle of its body needs no answer and no line in the log.
        with suppress(ClientDisconnect):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = _handler(scope) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        try:
            await handler(scope, receive, send)
        except problems.EXPECTED as error:
            await problems.answer(error)(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception as error:
            await problems.answer(error)(scope, receive, send)
            # uvicorn logs it.
            raise


def _handler(scope: Scope) -> ASGIApp | None:
    path, method = scope["path"], scope["method"]
    if path == notifications.PATH and method == "POST":
        return notifications.serve
    if path.startswith(PATH) and method in receipts.METHODS:
        token, _, kind = path[len(PATH) :].partition("/")
        if kind in receipts.KINDS:
            scope["path_params"] = {"token": token, "kind": receipts.KINDS[kind]}
            return receipts.serve
    return None
