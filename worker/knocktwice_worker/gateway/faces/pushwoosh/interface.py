"""The methods below ``/pushwoosh/json/1.3``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from knocktwice_worker.gateway.faces.face import Face
from knocktwice_worker.gateway.faces.pushwoosh import devices, messages, statistics
from knocktwice_worker.gateway.faces.pushwoosh.envelope import refuse
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_METHODS = {
    "createMessage": messages.create,
    "deleteMessage": messages.delete,
    "getMessageDetails": statistics.details,
    "getMsgStats": statistics.ask,
    "getResults": statistics.results,
    "registerDevice": devices.register,
    "unregisterDevice": devices.unregister,
    "setTags": devices.set_tags,
}


async def unknown(request: Request) -> Response:
    """Name what is not served."""
    there = ", ".join(_METHODS)
    raise Problem("invalid-field", f"{request.scope['path']} is not served; here are POST /pushwoosh/json/1.3/ {there}")


FACE = Face(
    prefix="/pushwoosh",
    routes=(
        *(Route(f"/json/1.3/{name}", method, methods=["POST"]) for name, method in _METHODS.items()),
        Route("/{rest:path}", unknown, methods=["GET", "POST"]),
    ),
    answer=refuse,
)
