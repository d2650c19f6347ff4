"""Twilio's resources about an account and its senders, as ``knocktwice doctor`` asks for them.

https://www.twilio.com/docs/iam/api/account, /docs/phone-numbers/api/incomingphonenumber-resource,
/docs/messaging/api/service-resource, /docs/whatsapp/api/senders. Every sender is the account's, apart from those that
are not in a message either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, SENDER
from knocktwice_worker.sandbox.answers import json_response, play
from knocktwice_worker.sandbox.rules import ORDINARY
from knocktwice_worker.sandbox.twilio import MAGIC_SENDERS, error, refused, unauthorised

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knocktwice_worker.sandbox.books import Books

#: A Messaging Service that no account has. All others are this account's.
_NO_SERVICE = "MG" + "0" * 32
#: Twilio's error for a full queue. Unlike the other errors of magic senders, it does not mean that the account lacks
#: the number.
_FULL = 21611


class TwilioAccount:
    """The endpoints."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        account = "/2010-04-01/Accounts/{account}"
        return [
            web.get(f"{account}.json", self._asked(_account)),
            web.get(f"{account}/IncomingPhoneNumbers.json", self._asked(_numbers)),
            web.get(f"{account}/SMS/ShortCodes.json", self._asked(_short_codes)),
            web.get("/v1/Services/{sid}", self._asked(_service)),
            web.get("/v2/Channels/Senders", self._asked(_whatsapp_senders)),
        ]

    def _asked(self, tell: Callable[[web.Request], web.Response]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            self._books.count("account")
            if refusal := unauthorised(request):
                return refusal
            answer = self._books.take_answer("account", None) or ORDINARY
            return await play(answer, request, refused(answer) if answer.refuses else tell(request))

        return handle


def _account(_: web.Request) -> web.Response:
    return json_response({"sid": ACCOUNT_SID, "status": "active", "type": "Full", "friendly_name": "Sandbox"})


def _numbers(request: web.Request) -> web.Response:
    number = request.query.get("PhoneNumber", SENDER)
    owned = MAGIC_SENDERS.get(number, _FULL) == _FULL
    shown = {"sid": "PN" + "0" * 32, "phone_number": number, "capabilities": {"sms": True, "mms": True, "voice": True}}
    return json_response({"incoming_phone_numbers": [shown] if owned else [], "page": 0, "next_page_uri": None})


def _short_codes(request: web.Request) -> web.Response:
    shown = {"sid": "SC" + "0" * 32, "short_code": request.query.get("ShortCode", "12345")}
    return json_response({"short_codes": [shown], "page": 0, "next_page_uri": None})


def _service(request: web.Request) -> web.Response:
    sid = request.match_info["sid"]
    if sid == _NO_SERVICE:
        return error(20404, f"The requested resource {request.path} was not found")
    return json_response({"sid": sid, "account_sid": ACCOUNT_SID, "us_app_to_person_registered": True})


def _whatsapp_senders(_: web.Request) -> web.Response:
    shown = {"sid": "XE" + "0" * 32, "status": "ONLINE", "sender_id": f"whatsapp:{SENDER}"}
    return json_response({"senders": [shown], "meta": {"key": "senders", "page": 0, "next_page_url": None}})
