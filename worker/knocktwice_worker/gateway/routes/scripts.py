"""The scripts that pages load: ``knocktwice.js``, and its service worker. They come from this package."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response

from knocktwice_worker import gateway

router = APIRouter(tags=["scripts"])

#: For how many seconds a browser may use what it has without asking. Service workers are asked for at every navigation.
_FRESH_S = 3_600
_HEADERS = {
    "Cache-Control": f"public, max-age={_FRESH_S}",
    # Pages of every origin load it, also those that isolate themselves and those that check its hash.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
_TYPE = "text/javascript; charset=utf-8"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/javascript": {"schema": {"type": "string"}}}},
    304: {"description": "It is as it was (`If-None-Match`)."},
}


@router.get("/knocktwice.js", response_class=Response, responses=_RESPONSES)
async def page_script(request: Request) -> Response:
    """Return the script that a page loads to report permission, device, tags and number."""
    return _script(request, "knocktwice.js")


@router.get("/knocktwice-worker.js", response_class=Response, responses=_RESPONSES)
async def service_worker(request: Request) -> Response:
    """Return the service worker that shows pushes and reports them, for `importScripts`."""
    return _script(request, "knocktwice-worker.js")


def _script(request: Request, name: str) -> Response:
    content, tag = _read(name)
    headers = {**_HEADERS, "ETag": tag}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPE, headers=headers)


@cache
def _read(name: str) -> tuple[bytes, str]:
    """Return a script and what tells this version of it from others."""
    content = files(gateway).joinpath("scripts", name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
