"""Reads answer within two seconds although PostgreSQL or the broker hangs, which gives no error to answer with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from knocktwice_worker.gateway.problems import unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds without an answer after which the servers are looked at, again and again. A look takes as long at most.
PATIENCE_S = 0.8
#: Where reads are. Receipts and links are writes, whatever their method.
_READS = "/v1/"


class ReadDeadline:
    """ASGI application. A read that only takes long, while the servers answer, goes on.

    Args:
        app: what stands behind.
        problems: looks what is wrong with the servers, and returns it soon.
    """

    def __init__(self, app: ASGIApp, problems: Callable[[], Awaitable[list[str]]]) -> None:
        self._app = app
        self._problems = problems
        # The event loop keeps no tasks alive by itself.
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not scope["path"].startswith(_READS):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        served = asyncio.create_task(self._serve(scope, receive, answer))
        try:
            while True:
                await asyncio.wait({served}, timeout=PATIENCE_S)
                if served.done() or answer.begun:
                    break
                problems = await self._problems()
                if problems and not answer.begun and not served.done():
                    answer.ours = True
                    # A thread in a call that hangs cannot be stopped: it is left to its end, unheard.
                    self._left.add(served)
                    served.add_done_callback(self._left.discard)
                    await unavailable("; ".join(problems)).response()(scope, receive, send)
                    return
            await served
        except asyncio.CancelledError:
            served.cancel()
            raise

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            if not answer.ours:
                raise


class _Answer:
    """The answer of what stands behind.

    Attributes:
        begun: whether its beginning was sent.
        ours: another answer was sent in its place, so nothing of it goes out any more.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.ours = False

    async def send(self, message: Message) -> None:
        if self.ours:
            return
        self.begun = True
        await self._send(message)
