"""OneSignal's shapes: where its clients put the key, what its errors look like, and which query it allows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.gateway.auth.access import admit
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.requests import Request

    from knocktwice_worker.gateway.auth.keys import Key, Scope

#: What stands before a key: ``Key`` of today's clients, ``Basic`` of the older ones, ``Bearer`` of our own.
_SCHEMES = frozenset({"key", "basic", "bearer"})
#: Problems whose status is another one at OneSignal.
_STATUSES = {422: 400}
#: Parts of paths whose errors are objects and not texts.
_OBJECTS = ("/users", "/subscriptions", "/subscriptions_by_token")
#: Where the documents say which of OneSignal's API is served.
DOCUMENT = "docs/moving/onesignal.md"


async def admitted(request: Request, scope: Scope) -> Key:
    """Return the key that OneSignal's client sent as its own, and count the request. Raises like ``admit``."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return await admit(request, given.strip() if scheme.lower() in _SCHEMES and given else None, scope, in_tests=True)


def require(key: Key, scope: Scope) -> None:
    """Refuse a key that lacks a scope which only some requests of a path need.

    Raises:
        Problem: it does.
    """
    if not key.allows(scope):
        raise Problem("forbidden", f"this key lacks the scope {scope}; 'knocktwice key create' makes one with it")


def answer(request: Request, problem: Problem) -> Response:
    """Write an error down as OneSignal does."""
    status = _STATUSES.get(problem.status, problem.status)
    told = [f"{one.field}: {one.problem}" for one in problem.errors] or [problem.detail]
    if problem.kind == "not-found" and problem.field is None:
        told = [f"{request.method} {request.url.path} is not served here; {DOCUMENT} lists what is"]
    if any(part in request.url.path.partition("/apps/")[2] for part in _OBJECTS):
        return said({"errors": [{"code": problem.kind, "title": one} for one in told]}, status)
    body: dict[str, Any] = {"errors": told}
    if "/segments" in request.url.path:
        body["success"] = False
    return said(body, status)


def said(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(content, status, dict(headers or {}), "application/json")


def with_warnings(body: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """Return a body that says which fields changed nothing."""
    return {**body, "warnings": list(warnings)} if warnings else body


def missing(what: str) -> Problem:
    """Return the problem that there is no such thing."""
    return Problem("not-found", f"{what} was not found", field=what)


def query(request: Request, known: Iterable[str] = ()) -> dict[str, str]:
    """Return the query's parameters.

    Raises:
        InvalidMessage: one is not known here, or stands there twice.
    """
    names = {*known, "app_id"}
    given = request.query_params.multi_items()
    problems = [
        InvalidMessage(name, "is not a parameter that is served here") for name, _ in given if name not in names
    ]
    found = dict(given)
    if len(found) < len(given):
        problems.append(InvalidMessage("query", "has a parameter twice"))
    if problems:
        raise InvalidMessage.of(problems)
    return found


def whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a parameter that is a whole number.

    Raises:
        InvalidMessage: it is none, or too large.
    """
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= most):
        raise InvalidMessage(name, f"must be a whole number from 0 to {most}")
    return int(text)
