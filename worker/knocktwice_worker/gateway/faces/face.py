"""A face: the addresses of another product, its way to name a key, and its shape of errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from knocktwice_worker.gateway import problems
from knocktwice_worker.gateway.http.request_line import unescaped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Match
    from starlette.types import Scope

    from knocktwice_worker.gateway.problems import Problem


class FaceRoute(Route):
    """A route whose parameters may hold slashes, if these are escaped."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route serves a request, with the parameters of its path."""
        match, child = super().matches(scope)
        return match, unescaped(scope, child, self.param_convertors)


@dataclass(frozen=True, slots=True)
class Face:
    """The HTTP interface of another product.

    Attributes:
        prefix: the beginning of its paths here, like ``/onesignal``.
        routes: what it serves, by paths without the prefix. Each handler asks for the key itself
            (:func:`knocktwice_worker.gateway.auth.access.admit`), because each product puts it elsewhere.
        answer: writes an error down as the product does; it gets the request and our own problem.
    """

    prefix: str
    routes: Sequence[Route]
    answer: Callable[[Request, Problem], Response]

    def mount(self, app: FastAPI) -> None:
        """Serve this face below its prefix. It shares the application's servers, keys, paces and outbox.

        Its routes are not in the OpenAPI document: the product's own documents describe them.
        """
        served = Starlette(routes=list(self.routes))
        served.router.redirect_slashes = False
        served.state = app.state

        async def handler(request: Request, error: Exception) -> Response:
            problem = problems.of(error)
            problems.log_if_ours(problem, error)
            told = self.answer(request, problem)
            for name, value in problem.headers.items():
                told.headers.setdefault(name, value)
            return told

        for kind in (*problems.EXPECTED, Exception):
            served.add_exception_handler(kind, handler)
        app.mount(self.prefix, served)
