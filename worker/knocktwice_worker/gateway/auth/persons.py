"""Access for apps and pages: the dependency by which a route checks a user token and learns whose it is.

A user token opens the routes that use this dependency and no other: a key of an application has another form, so the
key ring refuses a token, and this dependency refuses a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from knocktwice_shared.user_tokens import RefusedUserToken, UserScope, UserToken, read
from knocktwice_worker.gateway.auth.access import here, refuse_unknown_parameters
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: Reads the token of a request, if its header has one.
TOKEN = HTTPBearer(
    scheme_name="userToken",
    bearerFormat="JWT",
    description="A token for one person, made by the application's backend.",
    auto_error=False,
)


def person(scope: UserScope) -> Any:
    """Return the dependency that lets in whoever has a user token for ``scope``; its value is the token."""
    return Security(_gate(scope), scopes=[scope])


def _gate(scope: UserScope) -> Callable[[Request, Any], Coroutine[Any, Any, UserToken]]:
    async def gate(request: Request, credentials: Annotated[Any, Depends(TOKEN)]) -> UserToken:
        token = await admit_person(request, None if credentials is None else credentials.credentials, scope)
        refuse_unknown_parameters(request)
        return token

    return gate


async def admit_person(request: Request, given: str | None, scope: UserScope) -> UserToken:
    """Return the user token that a request came with, and count the request for this person.

    Raises:
        Problem: there is none that works, it lacks the scope, the person was erased since it was made, or the person's
            apps send too much.
    """
    services = here(request)
    if given is None:
        raise _unauthorized("send Authorization: Bearer and a user token; the application's backend makes one")
    try:
        token = read(given, services.user_token_secrets)
    except RefusedUserToken as error:
        raise _unauthorized(f"this token {error}") from None
    # An app that was left logged in would otherwise bring back a person who was erased.
    erased = await run_in_threadpool(services.erased.recall, [token.user])
    if token.user in erased and token.issued_at <= erased[token.user]:
        raise _unauthorized("this token was made before its person was erased")
    if scope not in token.scopes:
        raise Problem("forbidden", f"this token lacks the scope {scope}; the backend can make one with it")
    pace = request.app.state.person_pace
    if pace is not None:
        pace.enter(token.user)
        pace.leave(token.user)
    return token


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
