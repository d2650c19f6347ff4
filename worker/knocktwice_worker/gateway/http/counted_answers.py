"""Counts the gateway's answers by status, and adds the counts of this process to those of all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_worker.counters import totals
from knocktwice_worker.counters.counters import Count

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from knocktwice_worker.counters.counters import Counters
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: Seconds between two flushes.
_FLUSH_EVERY_S = 5.0


class CountedAnswers:
    """ASGI application that counts each answer.

    Args:
        app: what stands behind.
        counters: of this process.
    """

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counters.add(Count.GATEWAY_ANSWERS, (str(message["status"]),))
            await send(message)

        await self._app(scope, receive, counted)


class Flushes:
    """A thread that adds the counts of this process to the totals every few seconds, and at the end."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        # A daemon: a broker that hangs must not keep the gateway from its end.
        self._thread = threading.Thread(target=self._run, name="counters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Flush once more, if the broker answers in time."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while True:
            last = self._stop.wait(_FLUSH_EVERY_S)
            try:
                totals.flush(self._services.redis, self._services.counters)
            except RedisError as error:
                log.warning("answers are counted later", error=type(error).__name__)
            if last:
                return
