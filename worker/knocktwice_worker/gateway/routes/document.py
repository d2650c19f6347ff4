"""``/openapi.json``: what the gateway takes and answers, for whoever has any key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from knocktwice_worker.gateway.auth.access import requires
from knocktwice_worker.gateway.auth.keys import Scope

router = APIRouter(tags=["openapi"])


@router.get("/openapi.json", dependencies=[requires(Scope.READ, in_projects=True)])
async def openapi(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document of all operations."""
    document: dict[str, Any] = request.app.openapi()
    return document
