"""``/v1/me/phone``: a person proves that a number is theirs, by a code that comes to it, and only then it is bound.

The SMS with the code is an ordinary transactional message: the number's opt-out, its limits, the countries and the
budget count. The answer is the same whatever becomes of it, so it tells nobody anything about a number.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage, QueueFull
from knocktwice_shared.ids import uuid7
from knocktwice_shared.user_tokens import UserScope, UserToken
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, Out
from knocktwice_worker.gateway.auth.persons import person
from knocktwice_worker.gateway.auth.phone_codes import VALID, PhoneCodes
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.schemas.me import Code, OwnPhone
from knocktwice_worker.gateway.schemas.saved import Queued

router = APIRouter(prefix="/v1/me/phone", tags=["me"])

_Phone = Annotated[UserToken, person(UserScope.PHONE)]


@router.post("", status_code=202, openapi_extra=Takes(OwnPhone))
async def send_code(own: _Phone, request: Request, outbox: Out, services: Here) -> Queued:
    """Have a code sent to a number by SMS. It works for ten minutes; a code that was sent before works no more."""
    body = await read_json(request)
    wording.refuse_unknown(body, ("phone",))
    number = _number(body, services)
    codes = _codes(request)
    address = request.app.state.client_addresses.of(request.scope)
    code = await run_in_threadpool(codes.make, own.user, number, address)
    message: dict[str, Any] = {
        "phone": number,
        "only": "sms",
        "sms": {"text": services.settings.phone_code_text},
        "params": {"code": code},
        "category": "transactional",
        "valid_for_s": int(VALID.total_seconds()),
    }
    try:
        await outbox.send(wording.batch(message, uuid7(), services.settings.phone_rules))
    except (InvalidMessage, Problem, QueueFull):
        # Of any other error it is not known whether the SMS goes, so the code works and counts.
        await run_in_threadpool(codes.not_sent, own.user, number, address)
        raise
    return Queued()


@router.post("/verify", status_code=202, openapi_extra=Takes(Code))
async def verify_code(own: _Phone, request: Request, outbox: Out, services: Here) -> Queued:
    """Bind the number, if this is the code that was sent to it. After five wrong ones another has to be sent."""
    body = await read_json(request)
    wording.refuse_unfit(body, ("phone", "code"), ("code",))
    number, code = _number(body, services), body["code"]
    if not isinstance(code, str):
        raise InvalidMessage("code", "must be text, with its zeros in front")
    codes = _codes(request)
    if not await run_in_threadpool(codes.fits, own.user, number, code):
        raise InvalidMessage("code", "is wrong, has expired, was tried too often, or is for another number")
    await outbox.send(wording.change("bind_phone", {}, (), user=own.user, phone=number))
    # Only now: had the broker been away, the same code could have been sent again.
    await run_in_threadpool(codes.forget, own.user)
    return Queued()


def _number(body: dict[str, Any], services: Any) -> str:
    wording.require(body, ("phone",))
    return wording.phone(body["phone"], "phone", services.settings.phone_rules)


def _codes(request: Request) -> PhoneCodes:
    codes: PhoneCodes = request.app.state.phone_codes
    if not codes.per_hour:
        raise Problem("forbidden", "apps and pages cannot bind numbers here (KNOCKTWICE_PHONE_CODES_PER_H)")
    return codes
