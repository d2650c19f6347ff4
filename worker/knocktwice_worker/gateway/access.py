"""Who asks, and whether they may: what a route names as its dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.gateway.outbox import Outbox
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from knocktwice_worker.gateway.keyring import KeyRing
    from knocktwice_worker.gateway.keys import Key, Scope

_BEARER = HTTPBearer(
    bearerFormat="kt_ID_SECRET", description="A key made by `knocktwice key create`.", auto_error=False
)


def here(request: Request) -> Services:
    """Return the gateway's services."""
    services: Services = request.app.state.services
    return services


#: What a route asks for to reach servers.
Here = Annotated[Services, Depends(here)]


def outbox(request: Request) -> Outbox:
    """Return the way to the broker."""
    found: Outbox = request.app.state.outbox
    return found


#: What a route asks for to send messages.
Out = Annotated[Outbox, Depends(outbox)]


def requires(scope: Scope) -> Any:
    """Return the dependency that lets in whoever has a key for ``scope``; its value is the key."""
    return Security(_gate(scope), scopes=[scope])


def _gate(scope: Scope) -> Callable[[Request, Any], Coroutine[Any, Any, Key]]:
    async def gate(request: Request, credentials: Annotated[Any, Depends(_BEARER)]) -> Key:
        ring: KeyRing = request.app.state.keys
        key = None if credentials is None else await ring.find(credentials.credentials)
        if key is None:
            raise Problem(
                "unauthorized",
                "send Authorization: Bearer and a key that works; 'knocktwice key create' makes one",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not key.allows(scope):
            raise Problem("forbidden", f"this key lacks the scope {scope}; 'knocktwice key create' makes one with it")
        await request.app.state.pace.take(key.id)
        _refuse_unknown_parameters(request)
        return key

    return gate


def _refuse_unknown_parameters(request: Request) -> None:
    """A misspelt filter that is silently ignored shows the wrong rows."""
    if not request.query_params:
        return
    known = sorted(str(parameter.alias) for parameter in request.scope["route"].dependant.query_params)
    for name in request.query_params:
        if name not in known:
            told = f"is not a parameter of this request; known here: {', '.join(known) or 'none'}"
            raise InvalidMessage(name, told)
