"""Receipts from apps. They need no key: the address in a push is signed for this push and this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Receipt, parse_moment
from knocktwice_worker.content.links.receipt_urls import PATH, RefusedToken
from knocktwice_worker.gateway.http import body
from knocktwice_worker.gateway.http.request_line import HEAD_ONLY
from knocktwice_worker.gateway.intake.outbox import COMMITTED, DURABILITY
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.saved import Unfit

if TYPE_CHECKING:
    from datetime import datetime

    from knocktwice_shared.messages import ReceiptEvent
    from knocktwice_worker.gateway.intake.receipts import ReceiptIntake

router = APIRouter(tags=["receipts"])

#: Receipts in one request.
LIMIT = 5_000
#: A web page's service worker may report from anywhere, and a receipt is nobody's to be kept.
_HEADERS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
#: Headers with which browsers mark a request that no person made.
_PREFETCH = frozenset({b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"})
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
#: The forms of a request with one receipt.
METHODS = ["GET", "POST"]
#: The kinds of receipts.
KINDS = {str(kind): kind for kind in Receipt}


class Taken(BaseModel):
    """The result of a batch of receipts."""

    accepted: int = Field(description="How many were taken.")
    refused: list[Unfit] = Field(description="The others. Sending them again does not help.")


_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["receipts"],
                    "additionalProperties": False,
                    "properties": {
                        "strict": {
                            "type": "boolean",
                            "description": "Take all or none. Left out: the good ones are taken, the others named.",
                        },
                        "receipts": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": LIMIT,
                            "items": {
                                "type": "object",
                                "required": ["receipt", "kind"],
                                "additionalProperties": False,
                                "properties": {
                                    "receipt": {
                                        "type": "string",
                                        "description": "The push's `knocktwice_receipt`, or its last part.",
                                        "maxLength": 300,
                                    },
                                    "kind": {"type": "string", "enum": [str(kind) for kind in Receipt]},
                                    "at": {
                                        "type": "string",
                                        "format": "date-time",
                                        "description": "When it happened; left out, now.",
                                    },
                                },
                            },
                        },
                    },
                },
                "example": {
                    "receipts": [
                        {
                            "receipt": "https://push.example.com/r/AQGTniu2R...",
                            "kind": "delivered",
                            "at": "2026-11-21T09:30:00Z",
                        }
                    ]
                },
            }
        },
    }
}


_RESPONSES = documented("invalid-signature", "invalid-field", "too-many-requests", "unavailable")
_Token = Annotated[
    str, Path(description="From the push's `knocktwice_receipt`, which is this address without its end.")
]


@router.post(PATH + "{token}/{kind}", status_code=204, responses=_RESPONSES)
@router.get(PATH + "{token}/{kind}", status_code=204, responses=_RESPONSES)
async def report(request: Request, token: _Token, kind: Receipt) -> Response:
    """Report that a push was delivered, clicked, or seen elsewhere. Repeats and any order are harmless.

    A GET is for clients that can only fetch an address; what a browser fetches in advance reports nothing.
    """
    await _report(request.scope, token, kind)
    return Response(status_code=204, headers=_HEADERS)


async def serve(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - what it says is in the path
    """Serve one receipt without the framework (:mod:`knocktwice_worker.gateway.fast_path`)."""
    await _report(scope, **scope["path_params"])
    await send({"type": "http.response.start", "status": 204, "headers": _RAW_HEADERS})
    await send({"type": "http.response.body"})


@router.post(
    "/v1/receipts",
    status_code=202,
    openapi_extra=_BATCH_BODY,
    responses=documented(
        "malformed-json",
        "too-slow",
        "too-large",
        "unsupported-media-type",
        "invalid-field",
        "too-many-requests",
        "unavailable",
    ),
)
async def report_many(request: Request, response: Response) -> Taken:
    """Report up to 5,000 receipts at once, each by the address of its own push. Those that are not valid are named."""
    events, refused = _read_batch(_intake(request), await body.read_json(request))
    response.headers[DURABILITY] = COMMITTED
    if events:
        await _intake(request).take(events)
    return Taken(accepted=len(events), refused=refused)


async def _report(scope: Scope, token: str, kind: Receipt) -> None:
    if scope["method"] == "GET" and any(b"prefetch" in value for name, value in scope["headers"] if name in _PREFETCH):
        return
    intake: ReceiptIntake = scope["app"].state.receipts
    try:
        event = intake.read(token, kind)
    except RefusedToken as error:
        raise Problem("invalid-signature", f"this receipt {error}", field="token") from None
    if HEAD_ONLY not in scope:
        await intake.take([event])


def _intake(request: Request) -> ReceiptIntake:
    intake: ReceiptIntake = request.app.state.receipts
    return intake


def _read_batch(intake: ReceiptIntake, told: dict[str, Any]) -> tuple[list[ReceiptEvent], list[Unfit]]:
    for name in told.keys() - {"receipts", "strict"}:
        raise InvalidMessage(name, "is not known here; send receipts")
    receipts = told.get("receipts")
    if not isinstance(receipts, list) or not 1 <= len(receipts) <= LIMIT:
        raise InvalidMessage("receipts", f"must be a list of 1 to {LIMIT} receipts")
    strict = told.get("strict", False)
    if not isinstance(strict, bool):
        raise InvalidMessage("strict", "must be true or false")
    events, refused, malformed = [], [], False
    for place, one in enumerate(receipts):
        try:
            events.append(intake.read(*_fields(one, f"receipts[{place}]")))
        except RefusedToken as error:
            refused.append(Unfit(index=place, field=f"receipts[{place}].receipt", detail=str(error)))
        except InvalidMessage as error:
            refused.append(Unfit(index=place, field=error.field, detail=error.problem))
            malformed = True
    if refused and (strict or (malformed and not events)):
        raise InvalidMessage.of([InvalidMessage(one.field, one.detail) for one in refused])
    return events, refused


def _fields(one: object, path: str) -> tuple[str, Receipt, datetime | None]:
    if not isinstance(one, dict):
        raise InvalidMessage(path, "must be an object with receipt and kind")
    for name in one.keys() - {"receipt", "kind", "at"}:
        raise InvalidMessage(f"{path}.{name}", "is not known here; known are receipt, kind and at")
    address, kind, at = one.get("receipt"), one.get("kind"), one.get("at")
    if not isinstance(address, str) or len(address) > 300:
        raise InvalidMessage(f"{path}.receipt", "must be the push's knocktwice_receipt")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise InvalidMessage(f"{path}.kind", f"must be one of {', '.join(Receipt)}")
    moment = parse_moment(at, f"{path}.at") if "at" in one else None
    return address.rpartition("/")[2], known, moment
