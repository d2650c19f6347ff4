"""What SMS providers call back. No key: Twilio signs each request with the account's auth token, and of any other provider the
file of providers says by what its requests are believed.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Path, Request, Response

from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import wish
from knocktwice_worker.channels.http_sms import callbacks
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.channels.twilio.signature import is_genuine
from knocktwice_worker.channels.twilio.sms import CALLBACK_PATH
from knocktwice_worker.gateway.auth.access import Here
from knocktwice_worker.gateway.http.body import ARRIVAL_S
from knocktwice_worker.gateway.log_limit import OncePerMinute
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.store.provider_statuses import Report

if TYPE_CHECKING:
    from knocktwice_worker.gateway.intake.callbacks import CallbackIntake
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

router = APIRouter(tags=["callbacks"])

_lines = OncePerMinute()

_FORM = "application/x-www-form-urlencoded"
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
#: WhatsApp and others put the channel before the number.
_NUMBER = re.compile(r"(?:[a-z]+:)?(\+[1-9]\d{6,14})")
#: No answer to the person: Twilio itself confirms STOP and START and answers HELP.
_NO_REPLY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
_RESPONSES = documented("invalid-signature", "too-slow", "too-large", "too-many-requests", "unavailable")
_SMS_RESPONSES = documented(
    "invalid-signature", "malformed-json", "too-slow", "too-large", "too-many-requests", "unavailable"
) | {200: {"description": "Taken, in the provider's words", "content": {"text/plain": {}}}}

#: A provider's name in the file.
_Provider = Annotated[str, Path(description="The provider's name in KNOCKTWICE_SMS_PROVIDERS_FILE.")]


def _signed_form(what: str, example: dict[str, str]) -> dict[str, Any]:
    """Describe a request of Twilio's for the document."""
    text = {"type": "string"}
    schema = {"type": "object", "description": what, "additionalProperties": text, "example": example}
    schema["properties"] = dict.fromkeys(example, text)
    signature = {
        "name": "X-Twilio-Signature",
        "in": "header",
        "required": True,
        "description": "Twilio's signature for the public URL and these fields.",
        "schema": text,
    }
    return {"parameters": [signature], "requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}


_STATUS = _signed_form(
    "Twilio's parameters of a status callback, whatever else it adds to them.",
    {"MessageSid": "SM" + "0" * 32, "MessageStatus": "delivered", "ErrorCode": ""},
)
_INBOUND = _signed_form(
    "Twilio's parameters of an incoming message, whatever else it adds to them.",
    {"MessageSid": "SM" + "0" * 32, "From": "+16505550100", "Body": "STOP"},
)


@router.post(CALLBACK_PATH, status_code=204, responses=_RESPONSES, openapi_extra=_STATUS)
async def status(request: Request, services: Here) -> Response:
    """Take a report on what became of a message. Repeats, late ones and any order are harmless."""
    form = await _verified(request, services, CALLBACK_PATH)
    report = read_callback(form)
    if report is not None:
        query = request.query_params
        intent = services.reports.intent_of(query.get("intent", ""), query.get("sig", ""))
        callback = Report(
            report.sid,
            ProviderState(report.status),
            datetime.now(UTC),
            report.error,
            intent,
            report.price,
            report.unit,
        )
        await _intake(request).take(callback)
    return Response(status_code=204)


@router.post(
    CALLBACK_PATH + "/inbound",
    response_class=Response,
    openapi_extra=_INBOUND,
    responses=_RESPONSES | {200: {"description": "Taken", "content": {"text/xml": {}}}},
)
async def inbound(request: Request, services: Here) -> Response:
    """Take a text that somebody wrote: STOP ends texts to this number, START allows them again."""
    form = await _verified(request, services, CALLBACK_PATH + "/inbound")
    number = _NUMBER.fullmatch(form.get("From", ""))
    sid = form.get("MessageSid") or form.get("SmsSid") or ""
    meant = wish(form.get("Body", ""), form.get("OptOutType"))
    # What else people write is not ours to keep.
    if number and meant and _SID.fullmatch(sid):
        await _intake(request).take(InboundText(sid, number[1], meant))
    return Response(_NO_REPLY, media_type="text/xml")


@router.post(callbacks.PATH + "{provider}", status_code=204, response_class=Response, responses=_SMS_RESPONSES)
async def sms_status(provider: _Provider, request: Request, services: Here) -> Response:
    """Take what an SMS provider reports of messages. Repeats, late ones and any order are harmless."""
    return await _take(provider, request, services)


@router.get(callbacks.PATH + "{provider}", status_code=204, response_class=Response, responses=_SMS_RESPONSES)
async def sms_status_in_query(provider: _Provider, request: Request, services: Here) -> Response:
    """Take what an SMS provider reports of a message in the address."""
    return await _take(provider, request, services)


async def _take(provider: str, request: Request, services: Services) -> Response:
    raw = await _body(request)
    rules = services.sms_callbacks.get(provider)
    query = dict(request.query_params)
    if rules is None or not rules.is_genuine(request.headers, query, raw):
        raise Problem("invalid-signature", "this is not what KNOCKTWICE_SMS_PROVIDERS_FILE asks of a callback")
    try:
        reports = rules.read(query, raw)
    except callbacks.Unreadable as error:
        raise Problem("malformed-json", str(error)) from None
    now = datetime.now(UTC)
    heard = [
        Report(r.provider_id, r.status, now, r.error, r.intent, r.price, r.price_unit, r.error_text) for r in reports
    ]
    if heard:
        await _intake(request).take(*heard)
    return Response(rules.reply, media_type="text/plain") if rules.reply else Response(status_code=204)


def _intake(request: Request) -> CallbackIntake:
    intake: CallbackIntake = request.app.state.callbacks
    return intake


async def _verified(request: Request, services: Services, path: str) -> dict[str, str]:
    """Return the fields of a request that Twilio has signed for the address that we gave it."""
    raw = await _body(request)
    settings = services.settings
    if settings.public_url is None or settings.twilio_auth_token is None:
        if _lines.due("not set"):
            log.warning("callback refused", reason="KNOCKTWICE_PUBLIC_URL or TWILIO_AUTH_TOKEN is not set")
        raise _refused()
    query = request.scope["query_string"].decode("latin-1")
    # What proxies made of host, scheme and path does not matter.
    url = settings.public_url.rstrip("/") + path + (f"?{query}" if query else "")
    fields, body = _fields(request, raw)
    genuine = is_genuine(
        token=settings.twilio_auth_token.get_secret_value(),
        url=url,
        signature=request.headers.get("x-twilio-signature", ""),
        form=fields,
        body=body,
    )
    if not genuine:
        raise _refused()
    return dict(fields)


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(ARRIVAL_S):
            return await request.body()
    except TimeoutError:
        raise Problem("too-slow", f"the body must arrive within {ARRIVAL_S:g} seconds") from None


def _fields(request: Request, raw: bytes) -> tuple[list[tuple[str, str]], bytes | None]:
    """Return the fields, and the body if its hash is what is signed."""
    try:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            return parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=200), None
        told = json.loads(raw)
    except (ValueError, RecursionError):
        raise _refused() from None
    if not isinstance(told, dict):
        raise _refused()
    return [(name, str(value)) for name, value in told.items() if isinstance(value, str | int)], raw


def _refused() -> Problem:
    return Problem("invalid-signature", "X-Twilio-Signature does not fit this request and the public URL")
