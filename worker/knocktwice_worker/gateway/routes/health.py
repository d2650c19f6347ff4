"""``/healthz``: the process works. ``/readyz``: so do the servers that it needs. Both answer without a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_worker import migrations
from knocktwice_worker.gateway.access import Here
from knocktwice_worker.gateway.problems import documented, unavailable

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Tell whether the process answers. For liveness probes: it asks no other server."""
    return Health()


@router.get("/readyz", responses=documented("unavailable"))
def readyz(services: Here) -> Health:
    """Tell whether PostgreSQL and the broker answer, and whether the tables are there. For probes and load balancers."""
    silent = [name for name, look in (("PostgreSQL", _postgres), ("the broker", _broker)) if not look(services)]
    if silent:
        raise unavailable(f"{' and '.join(silent)} cannot be reached")
    with services.engine.connect() as conn:
        missing = migrations.pending(conn)
    if missing:
        raise unavailable(f"the database lacks the migrations from {missing[0]} on; run: knocktwice migrate")
    return Health()


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
