"""``/healthz``: the process works. ``/readyz``: so do the servers that it needs. Both answer without a key."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_worker.database import migrations
from knocktwice_worker.gateway.problems import documented, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services

router = APIRouter(tags=["health"])

#: Seconds for which one good look is enough.
WELL_FOR_S = 1.0


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

    Anybody may ask, and each look takes a connection and a thread that requests with a key wait for.

    Args:
        services: what it looks at.
        clock: seconds that never go backwards.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._well_until = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        # Not one of those that requests share: slow queries don't make a gateway unready.
        self._thread = ThreadPoolExecutor(1, "readiness")

    async def check(self) -> None:
        """Return if all is well.

        Raises:
            Problem: what is not.
        """
        if self._clock() < self._well_until:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(_heard)
        # A client that goes away must not cancel the check for the other clients.
        await asyncio.shield(self._looking)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown()

    async def _look(self) -> None:
        asked = self._clock()
        await asyncio.get_running_loop().run_in_executor(self._thread, _look, self._services)
        self._well_until = asked + WELL_FOR_S


def _heard(looking: asyncio.Task[None]) -> None:
    """Have an error that nobody waits for any more taken note of, or asyncio logs it."""
    if not looking.cancelled():
        looking.exception()


def _look(services: Services) -> None:
    silent = [name for name, look in (("PostgreSQL", _postgres), ("the broker", _broker)) if not look(services)]
    if silent:
        raise unavailable(f"{' and '.join(silent)} cannot be reached")
    with services.engine.connect() as conn:
        missing = migrations.pending(conn)
    if missing:
        raise unavailable(f"the database lacks the migrations from {missing[0]} on; run: knocktwice migrate")


def _postgres(services: Services) -> bool:
    try:
        with services.engine.connect() as conn:
            conn.execute(text("SELECT"))
    except SQLAlchemyError:
        return False
    return True


def _broker(services: Services) -> bool:
    try:
        services.redis.ping()
    except RedisError:
        return False
    return True
