"""``/openapi.json``: what the gateway takes and answers, for whoever has any key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from knocktwice_worker.gateway.access import requires
from knocktwice_worker.gateway.keys import Scope

router = APIRouter(tags=["openapi"])


@router.get("/openapi.json", dependencies=[requires(Scope.READ)], include_in_schema=False)
async def openapi(request: Request) -> Any:
    """Return the OpenAPI document of all operations."""
    return request.app.openapi()
