"""Callbacks from providers: reports about messages, and texts that people wrote. The registry defines the routes.

The routes need no key, because each provider proves in its own way that it sent a request.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import structlog
from fastapi import APIRouter, Path, Request, Response

from knocktwice_shared.messages.phone_text import E164
from knocktwice_worker.audience.inbound_texts import InboundText, country
from knocktwice_worker.audience.opt_out_words import wish
from knocktwice_worker.channels import registry
from knocktwice_worker.channels.reports import Arrived, NotBelieved, Unreadable
from knocktwice_worker.gateway.auth.access import Here
from knocktwice_worker.gateway.http.body import ARRIVAL_S
from knocktwice_worker.gateway.log_limit import OncePerMinute
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.notation.phone_numbers import spelled

if TYPE_CHECKING:
    from knocktwice_worker.channels.channel import CallbackRoute
    from knocktwice_worker.channels.reports import Heard, WrittenText
    from knocktwice_worker.gateway.intake.callbacks import CallbackIntake
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

router = APIRouter(tags=["callbacks"])

_lines = OncePerMinute()

_FORM = "application/x-www-form-urlencoded"
_PROBLEMS = ("invalid-signature", "malformed-json", "too-slow", "too-large", "too-many-requests", "unavailable")
_TAKEN: dict[int | str, dict[str, Any]] = {
    200: {"description": "Taken, in the provider's words", "content": {"text/plain": {}}}
}

#: A provider's name in the file.
_Provider = Annotated[str, Path(description="The provider's name in KNOCKTWICE_SMS_PROVIDERS_FILE.")]


def _responses(route: CallbackRoute) -> dict[int | str, dict[str, Any]]:
    if route.signature is None:
        return documented(*_PROBLEMS) | _TAKEN
    problems = documented(*(problem for problem in _PROBLEMS if problem != "malformed-json"))
    return problems | ({200: {"description": "Taken", "content": {route.reply[1]: {}}}} if route.reply else {})


def _described(route: CallbackRoute) -> dict[str, Any]:
    """Describe a provider's request for the document."""
    text = {"type": "string"}
    described: dict[str, Any] = {}
    if route.signature is not None:
        name, what = route.signature
        described["parameters"] = [
            {"name": name, "in": "header", "required": True, "description": what, "schema": text}
        ]
    if route.form is not None:
        what, example = route.form
        schema = {"type": "object", "description": what, "additionalProperties": text, "example": dict(example)}
        schema["properties"] = dict.fromkeys(example, text)
        described["requestBody"] = {"required": True, "content": {_FORM: {"schema": schema}}}
    return described


def _serve(route: CallbackRoute) -> None:
    async def by_name(provider: _Provider, request: Request, services: Here) -> Response:
        return await _take(route, request, services, provider)

    async def alone(request: Request, services: Here) -> Response:
        return await _take(route, request, services)

    serve: Any = by_name if "{provider}" in route.path else alone
    router.add_api_route(
        route.path,
        serve,
        methods=list(route.methods),
        name=route.name,
        description=route.summary,
        status_code=200 if route.reply else 204,
        response_class=Response,
        responses=_responses(route),
        openapi_extra=_described(route) or None,
    )


for _route in registry.routes():
    _serve(_route)


async def _take(route: CallbackRoute, request: Request, services: Services, provider: str = "") -> Response:
    body = await _body(request)
    query = request.scope["query_string"].decode("latin-1")
    heard = _heard(services, route, Arrived(provider, query, request.headers, body, datetime.now(UTC)))
    texts = [_text(services, written) for written in heard.texts]
    if heard.reports or texts:
        await _intake(request).take(*heard.reports, *texts)
    return Response(heard.reply, media_type=heard.media_type) if heard.reply else Response(status_code=204)


def _text(services: Services, written: WrittenText) -> InboundText:
    number, meant = written.number, None
    # A short code or a name sends no wish: there is no number to be left alone.
    if E164.fullmatch(number):
        number, meant = spelled(number), wish(written.text, written.opt_out, country(number))
    return InboundText(
        written.provider_id,
        number,
        meant,
        written.text if services.settings.inbound_days else None,
        written.provider,
        written.channel,
        written.sender,
        services.projects.owner(written.sender),
    )


def _heard(services: Services, route: CallbackRoute, arrived: Arrived) -> Heard:
    try:
        return services.channels.receivers[route.path].receive(arrived)
    except NotBelieved as error:
        if error.unset is not None and _lines.due("not set"):
            log.warning("callback refused", reason=f"{error.unset} is not set")
        raise Problem("invalid-signature", str(error)) from None
    except Unreadable as error:
        raise Problem("malformed-json", str(error)) from None


def _intake(request: Request) -> CallbackIntake:
    intake: CallbackIntake = request.app.state.callbacks
    return intake


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(ARRIVAL_S):
            return await request.body()
    except TimeoutError:
        raise Problem("too-slow", f"the body must arrive within {ARRIVAL_S:g} seconds") from None
