"""Pushwoosh's envelope around every request and every answer, with the place of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_worker.gateway.auth.access import admit
from knocktwice_worker.gateway.faces import ascii_json
from knocktwice_worker.gateway.http.body import json_object, read_any
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.gateway.auth.keys import Key, Scope

#: Pushwoosh's code of every request that cannot be met.
ARGUMENT = 210


async def opened(request: Request, scope: Scope) -> tuple[Key, dict[str, Any]]:
    """Return the key and the inside of a request.

    The key is ``auth``, or stands behind ``Authorization: Token``, where newer clients put it.

    Raises:
        Problem: it is no JSON object with ``request`` in it, or there is no key that works.
    """
    body = json_object(await read_any(request))
    inside = body.get("request")
    if not isinstance(inside, dict):
        raise Problem("malformed-json", 'the body must be {"request": {…}}')
    given = inside.pop("auth", None)
    if given is None:
        given = request.headers.get("authorization", "").rpartition(" ")[2] or None
    return await admit(request, given if isinstance(given, str) else None, scope, in_tests=True), inside


def answer(response: object) -> Response:
    """Return the answer that a request was met."""
    return ascii_json.answer({"status_code": 200, "status_message": "OK", "response": response})


def refuse(_: Request, problem: Problem) -> Response:
    """Return an error in Pushwoosh's form: a ``status_code``, and 200 unless the body is no request or we fail."""
    told = "; ".join(map(str, problem.errors)) or problem.detail
    if problem.kind == "malformed-json":
        return ascii_json.answer({"status_code": 400, "status_message": told, "response": None}, 400)
    if problem.status in (408, 429) or problem.status >= 500:
        body = {"status_code": problem.status, "status_message": told, "response": None}
        return ascii_json.answer(body, problem.status)
    if problem.kind == "unauthorized":
        told = "Account not found: auth must be a key that works; 'knocktwice key create' makes one"
    errors = [{"field": one.field, "detail": one.problem} for one in problem.errors]
    body = {"status_code": ARGUMENT, "status_message": told, "response": None}
    return ascii_json.answer(body | {"knocktwice": {"errors": errors}} if errors else body)
