"""The gateway's error answers: problem details (RFC 9457), always with the field and the fix."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Route

from knocktwice_shared.errors import BrokerUnavailable, InvalidMessage, KnocktwiceError, NotConfirmed, QueueFull
from knocktwice_worker.gateway.log_limit import OncePerMinute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import APIRouter, FastAPI, Request

log = structlog.get_logger(__name__)

_lines = OncePerMinute()

MEDIA_TYPE = "application/problem+json"
#: Seconds after which a client may try again when a server behind the gateway is away.
RETRY_AFTER_S = 5
#: PostgreSQL's code for a query that took longer than it may.
_CANCELED = "57014"

#: The kinds of problems: their status and what they are called. ``type`` is ``urn:knocktwice:problem:`` and the name.
KINDS: dict[str, tuple[int, str]] = {
    "malformed-json": (400, "The body is not JSON"),
    "unauthorized": (401, "A valid key is missing"),
    "invalid-signature": (403, "The signature does not fit"),
    "forbidden": (403, "The key is not allowed to do this"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "over-budget": (409, "It may cost more than allowed"),
    "wrong-state": (409, "It is in no state for this"),
    "too-little-history": (409, "There is too little history"),
    "too-slow": (408, "The request took too long to arrive"),
    "too-large": (413, "The body is too large"),
    "target-too-long": (414, "The address is too long"),
    "unsupported-media-type": (415, "The body has the wrong content type"),
    "invalid-field": (422, "A field is wrong"),
    "idempotency-key-reused": (422, "The idempotency key was used for something else"),
    "too-many-requests": (429, "Too many requests"),
    "head-too-large": (431, "The head of the request is too large"),
    "internal": (500, "Something went wrong here"),
    "backlog-full": (503, "As much waits already as may wait"),
    "not-confirmed": (503, "The broker has it, but not yet as safely as it must be"),
    "unavailable": (503, "A server behind the gateway does not answer"),
}


class FieldProblem(BaseModel):
    """One wrong field."""

    field: str = Field(description="By its path.")
    detail: str = Field(description="What is wrong with it, and what would be right.")


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:knocktwice:problem:invalid-field",
                "title": "A field is wrong",
                "status": 422,
                "detail": "recipients[3].phone: is too short for a number of +49",
                "field": "recipients[3].phone",
                "errors": [
                    {
                        "field": "recipients[3].phone",
                        "detail": "must be a phone number in E.164, like +16505550100",
                    }
                ],
            }
        }
    )

    type: str = Field(description="Which kind of problem, as a URN.")
    title: str = Field(description="The kind of problem, for people.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, and what would be right.")
    field: str | None = Field(None, description="The first field that is wrong, by its path.")
    errors: list[FieldProblem] | None = Field(None, description="All fields that are wrong.")


class Problem(KnocktwiceError):
    """The answer to a request is this problem.

    Args:
        kind: one of :data:`KINDS`.
        detail: what is wrong and what would be right; never a secret, a number or a text.
        field: the field that is wrong.
        headers: of the answer.
        errors: all wrong fields.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[InvalidMessage] = (),
    ) -> None:
        super().__init__(detail)
        self.errors = errors
        self.kind = kind
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]

    def response(self) -> Response:
        """Return the answer."""
        status, title = KINDS[self.kind]
        told: dict[str, Any] = {
            "type": f"urn:knocktwice:problem:{self.kind}",
            "title": title,
            "status": status,
            "detail": self.detail,
        }
        if self.field is not None:
            told["field"] = self.field
        if self.errors:
            told["errors"] = [{"field": one.field, "detail": one.problem} for one in self.errors]
        return Response(json.dumps(told), status, self.headers, MEDIA_TYPE)


def invalid(error: InvalidMessage) -> Problem:
    """Return the problem that an input is wrong."""
    return Problem("invalid-field", str(error), field=error.field, errors=error.problems)


def unavailable(detail: str, *, after_s: float = RETRY_AFTER_S) -> Problem:
    """Return the problem that something behind the gateway is away for the moment."""
    return Problem("unavailable", detail, headers={"Retry-After": str(math.ceil(after_s))})


def full(error: QueueFull) -> Problem:
    """Return the problem that no more messages may wait."""
    detail = (
        "too many accepted messages wait for the workers, and this one was not accepted; the limits are "
        "KNOCKTWICE_BACKLOG_MESSAGES, KNOCKTWICE_BACKLOG_BYTES and the broker's memory; send the request again later "
        "with the same Idempotency-Key"
    )
    return Problem("backlog-full", detail, headers={"Retry-After": str(math.ceil(error.retry_after_s))})


def of(error: Exception) -> Problem:
    """Return what a client is told about an error; nothing of an unexpected one."""
    match error:
        case Problem():
            return error
        case InvalidMessage():
            return invalid(error)
        case QueueFull():
            return full(error)
        case NotConfirmed():
            detail = (
                "the broker has it, but does not confirm it at the level of KNOCKTWICE_DURABILITY; the outcome is "
                "unknown, and it is safe to send the request again with the same Idempotency-Key"
            )
            return Problem("not-confirmed", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        case BrokerUnavailable() | RedisError():
            return unavailable("the broker does not answer; send the request again with the same Idempotency-Key")
        case DBAPIError() if getattr(error.orig, "pgcode", None) == _CANCELED:
            return unavailable("the query took too long; ask for less")
        case OperationalError() | PoolTimeout():
            return unavailable("the database does not answer; try again")
        case RequestValidationError():
            return _of_parameters(error)
        case HTTPException():
            return _of_routing(error)
        case _:
            return Problem("internal", "it was logged; nothing you sent need be wrong")


#: The errors with which a request may end; every other error is our own fault.
EXPECTED = (KnocktwiceError, RequestValidationError, HTTPException, DBAPIError, PoolTimeout, RedisError)


def handle(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Let the application answer all errors this way.

    Args:
        routers: all that it serves.
    """
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]

    async def handler(request: Request, error: Exception) -> Response:
        problem = of(error)
        if problem.status == 405:
            problem.headers["Allow"] = ", ".join(methods(routes, request.scope["path"]))
        return answer(problem, error)

    for kind in (*EXPECTED, Exception):
        app.add_exception_handler(kind, handler)


def answer(problem: Problem | Exception, error: Exception | None = None) -> Response:
    """Return the answer to an error, and log what is not the client's fault."""
    told = problem if isinstance(problem, Problem) else of(problem)
    log_if_ours(told, error or problem)
    return told.response()


def log_if_ours(problem: Problem, error: Exception) -> None:
    """Log an error that is not the client's fault, once a minute for each kind."""
    if problem.status == 503:
        name = type(error.__cause__ or error).__name__
        if _lines.due(name):
            log.warning("not available", error=name)


def methods(routes: Sequence[Route], path: str) -> list[str]:
    """Return the methods of a path. Each route knows only its own; the most concrete path that matches counts.

    What can be fetched can be asked for its head, and whatever exists says which methods it has.
    """
    fitting = [route for route in routes if route.path_regex.match(path)]
    fewest = min((len(route.param_convertors) for route in fitting), default=0)
    found = {method for r in fitting if len(r.param_convertors) == fewest for method in r.methods or ()}
    return sorted(found | {"OPTIONS"} | ({"HEAD"} & {"HEAD" if "GET" in found else ""})) if found else []


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return the answers of these kinds, for an operation's part of the OpenAPI document."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        schema = {"$ref": "#/components/schemas/ProblemDetails"}
        if status in described:
            described[status]["description"] += f"; {title[0].lower()}{title[1:]}"
            continue
        described[status] = {"description": title, "content": {MEDIA_TYPE: {"schema": schema}}}
    return described


def without_content(described: Mapping[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Return the same answers as they are to HEAD."""
    return {status: {"description": answer["description"]} for status, answer in described.items()}


def _of_parameters(error: RequestValidationError) -> Problem:
    """Parameters of path, query and header are checked by FastAPI; bodies are not."""
    return invalid(
        InvalidMessage.of(
            [
                InvalidMessage(".".join(str(step) for step in one["loc"][1:]) or str(one["loc"][0]), one["msg"])
                for one in error.errors()
            ]
        )
    )


def _of_routing(error: HTTPException) -> Problem:
    by_status = {status: kind for kind, (status, _) in KINDS.items() if kind != "idempotency-key-reused"}
    kind = by_status.get(error.status_code, "not-found")
    details = {"not-found": "no such path; /openapi.json lists those there are"}
    return Problem(kind, details.get(kind, str(error.detail)), headers=error.headers)
