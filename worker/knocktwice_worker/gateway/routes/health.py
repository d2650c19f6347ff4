"""``/healthz``: the process works. ``/readyz``: so do the servers that it needs. Both answer without a key."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from pydantic import BaseModel
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_worker.database import migrations
from knocktwice_worker.gateway.problems import documented, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services

router = APIRouter(tags=["health"])

#: Seconds for which one good look is enough.
WELL_FOR_S = 1.0
#: Seconds after which a server that has not answered counts as silent.
SILENT_AFTER_S = 0.8


class Health(BaseModel):
    """All is well."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Tell whether the process answers. For liveness probes: it asks no other server."""
    return Health()


@router.get("/readyz", responses=documented("unavailable"))
async def readyz(request: Request) -> Health:
    """Tell whether PostgreSQL and the broker answer, and whether the tables are there. For probes and load balancers."""
    readiness: Readiness = request.app.state.readiness
    await readiness.check()
    return Health()


class Readiness:
    """Looks whether the servers answer, for all who ask: one look at a time, and what was well stays so for a second.

    Anybody may ask, and each look takes a connection and a thread that requests with a key wait for. A server that
    hangs gives no error, and the call to it may never end: so each look has a thread of its own, which is left behind,
    and until it ends the server counts as silent.

    Args:
        services: what it looks at.
        clock: seconds that never go backwards.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks = {
            "PostgreSQL": partial(_postgres, services),
            "the broker": partial(_broker, services),
        }
        self._running: dict[str, asyncio.Future[str]] = {}
        self._well_until = float("-inf")
        self._looking: asyncio.Task[list[str]] | None = None

    async def check(self) -> None:
        """Return if all is well.

        Raises:
            Problem: what is not.
        """
        if problems := await self.problems():
            raise unavailable("; ".join(problems))

    async def problems(self, *, fresh: bool = False) -> list[str]:
        """Return what is wrong with the servers, within a second whatever hangs.

        Args:
            fresh: look, although all was well a moment ago.
        """
        if not fresh and self._clock() < self._well_until:
            return []
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        # A client that goes away must not cancel the check for the other clients.
        return await asyncio.shield(self._looking)

    async def _look(self) -> list[str]:
        asked = self._clock()
        for name, look in self._looks.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = _in_a_thread(look)
        await asyncio.wait(self._running.values(), timeout=SILENT_AFTER_S)
        found = [
            running.result() if running.done() else f"{name} does not answer" for name, running in self._running.items()
        ]
        problems = [problem for problem in found if problem]
        if not problems:
            self._well_until = asked + WELL_FOR_S
        return problems


def _in_a_thread(look: Callable[[], str]) -> asyncio.Future[str]:
    """Run a look in a thread that does not keep the process from its end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def tell(found: str) -> None:
        if not answer.done():
            answer.set_result(found)

    def run() -> None:
        found = look()
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=run, name="readiness", daemon=True).start()
    return answer


def _postgres(services: Services) -> str:
    try:
        with services.engine.connect() as conn:
            missing = migrations.pending(conn)
    except SQLAlchemyError:
        return "PostgreSQL cannot be reached"
    return f"the database lacks the migrations from {missing[0]} on; run: knocktwice migrate" if missing else ""


def _broker(services: Services) -> str:
    try:
        services.redis.ping()
    except RedisTimeoutError:
        return "the broker does not answer"
    except RedisError:
        return "the broker cannot be reached"
    return ""
