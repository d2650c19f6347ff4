"""Twilio's Messages API: create, list and fetch.

https://www.twilio.com/docs/messaging/api/message-resource — errors as in https://www.twilio.com/docs/api/errors.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web
from yarl import URL

from knocktwice_worker.sandbox import twilio_json
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN
from knocktwice_worker.sandbox.answers import json_response, play
from knocktwice_worker.sandbox.rules import ORDINARY, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knocktwice_worker.sandbox.books import Books
    from knocktwice_worker.sandbox.records import SentText

#: Numbers that need no rule. The first five are Twilio's own (https://www.twilio.com/docs/iam/test-credentials).
MAGIC_NUMBERS = {
    "+15005550001": Answer(error_code=21211),  # invalid
    "+15005550002": Answer(error_code=21612),  # cannot be reached from this sender
    "+15005550003": Answer(error_code=21408),  # its country is not allowed
    "+15005550004": Answer(error_code=21610),  # opted out
    "+15005550009": Answer(error_code=21614),  # no mobile
    "+15005550010": Answer(error_code=21610),  # opted out
    "+15005550011": Answer(error_code=20429),  # too many requests
    "+15005550030": Answer(error_code=30003, statuses=("sent", "undelivered")),  # switched off
    "+15005550031": Answer(error_code=30007, statuses=("failed",)),  # filtered by the carrier
    "+15005550032": Answer(statuses=("sent",)),  # its operator sends no delivery receipts
}
#: Senders that need no rule, Twilio's own too.
MAGIC_SENDERS = {
    "+15005550001": 21212,  # invalid
    "+15005550007": 21606,  # not this account's
    "+15005550008": 21611,  # its queue is full
}

_BODY_LIMIT = 1600
_MEDIA_LIMIT = 10
_CALLBACK_LIMIT = 4000
#: Longest ``ValidityPeriod``, in seconds.
_VALIDITY_LIMIT = 36_000
#: Of parameters that have no code of their own.
_BAD_REQUEST = 400
_NUMBER = re.compile(r"(whatsapp:)?\+[1-9]\d{6,14}")
_SENDER = re.compile(r"(whatsapp:)?\+[1-9]\d{6,14}|\d{3,6}|(?=.*[A-Za-z])[A-Za-z0-9 +\-_&]{1,11}")
_WHATSAPP = "whatsapp:"
_CONTENT = re.compile(r"HX[0-9a-fA-F]{32}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_PUNCTUATION = re.compile(r"[\s().-]")
_PAGE_SIZE, _PAGE_SIZE_LIMIT = 50, 1000
#: Statuses that are not 400.
_STATUSES = {20005: 401, 20003: 401, 20404: 404, 20429: 429, 20500: 500, 20503: 503}
_CODES = {status: code for code, status in _STATUSES.items()}


class Refused(ValueError):
    """Twilio would refuse this, with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Twilio:
    """The endpoints. ``depart`` is called with each SMS that was taken and what becomes of it."""

    def __init__(self, books: Books, depart: Callable[[SentText, Answer], None]) -> None:
        self._books = books
        self._depart = depart

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        account = "/2010-04-01/Accounts/{account}/Messages"
        return [
            web.post(f"{account}.json", self._create),
            web.get(f"{account}.json", self._list),
            web.get(f"{account}/{{sid}}.json", self._fetch),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        self._books.count("sms")
        if refusal := unauthorised(request):
            return refusal
        posted = await request.post()
        form = {name: str(value) for name, value in posted.items()}
        try:
            message = _parse(form)
            media = _media([str(url) for url in posted.getall("MediaUrl", [])], form)
        except Refused as wrong:
            return error(wrong.code, str(wrong))
        answer = self._answer(message["to"] or "", message["sender"])
        text = None
        if answer.books:
            text = self._books.add_text(
                to=message["to"] or "",
                body=message["body"] or "",
                sender=message["sender"],
                messaging_service=message["messaging_service"],
                status_callback=message["status_callback"],
                validity_s=int(message["validity"]) if message["validity"] else None,
                media=media,
            )
            self._depart(text, answer)
        if text is not None and not answer.refuses:
            return await play(answer, request, json_response(twilio_json.message(text), 201))
        return await play(answer, request, refused(answer))

    async def _list(self, request: web.Request) -> web.Response:
        self._books.count("list")
        if refusal := unauthorised(request):
            return refusal
        query = request.query
        answer = self._books.take_answer("list", query.get("To")) or ORDINARY
        try:
            texts = [] if answer.empty else self._matching(query)
            page = _page(texts, query)
        except Refused as wrong:
            return error(wrong.code, str(wrong))
        response = refused(answer) if answer.refuses else json_response(page)
        return await play(answer, request, response)

    async def _fetch(self, request: web.Request) -> web.Response:
        self._books.count("list")
        if refusal := unauthorised(request):
            return refusal
        text = self._books.text(request.match_info["sid"])
        if text is None:
            return error(20404, f"The requested resource {request.path} was not found")
        return json_response(twilio_json.message(text))

    def _answer(self, to: str, sender: str | None) -> Answer:
        answer = self._books.take_answer("sms", to)
        usual = MAGIC_NUMBERS.get(to, ORDINARY)
        if sender in MAGIC_SENDERS:
            usual = Answer(error_code=MAGIC_SENDERS[sender])
        if answer is None:
            return usual
        # A rule that only delays leaves the number what it is.
        return answer if not answer.ordinary or answer.statuses is not None else replace(usual, latency=answer.latency)

    def _matching(self, query: Mapping[str, str]) -> list[SentText]:
        """Return the SMS that a list request asks for, newest first."""
        texts = self._books.texts()[::-1]
        if to := query.get("To"):
            texts = [t for t in texts if t.to == to]
        if sender := query.get("From"):
            texts = [t for t in texts if t.sender == sender]
        for name, value in query.items():
            if name.startswith("DateSent"):
                start, end = _sent_within(name, value)
                texts = [t for t in texts if t.sent_at and start <= t.sent_at < end]
        return texts


def _parse(form: Mapping[str, str]) -> dict[str, str | None]:
    to, body = _PUNCTUATION.sub("", form.get("To", "")), form.get("Body", "")
    sender, service, callback = form.get("From"), form.get("MessagingServiceSid"), form.get("StatusCallback")
    if not to:
        raise Refused(21604, "A 'To' phone number is required.")
    if not _NUMBER.fullmatch(to):
        raise Refused(21211, f"The 'To' number {form['To']} is not a valid phone number.")
    if not sender and not service:
        raise Refused(21603, "A 'From' phone number is required.")
    if sender and not _SENDER.fullmatch(sender):
        raise Refused(
            21212, f"The 'From' number {sender} is not a valid phone number, shortcode, or alphanumeric sender ID."
        )
    if service and not _SERVICE.fullmatch(service):
        raise Refused(21705, f"The Messaging Service Sid {service} is invalid.")
    if form.get("ContentSid"):
        body = _filled_in(form["ContentSid"], form.get("ContentVariables"))
    if sender and sender.startswith(_WHATSAPP) != to.startswith(_WHATSAPP):
        raise Refused(21910, "Invalid From and To pair. From and To should be of the same channel")
    if not body and not form.get("MediaUrl"):
        raise Refused(21602, "Message body is required.")
    if len(body) > _BODY_LIMIT:
        raise Refused(21617, "The concatenated message body exceeds the 1600 character limit.")
    validity = form.get("ValidityPeriod")
    if validity is not None and not (
        validity.isascii() and validity.isdigit() and 1 <= int(validity) <= _VALIDITY_LIMIT
    ):
        raise Refused(_BAD_REQUEST, f"The ValidityPeriod {validity} is not between 1 and {_VALIDITY_LIMIT}.")
    if callback and not _is_web_address(callback):
        raise Refused(21609, f"The StatusCallback URL {callback} is not a valid URL.")
    return {
        "to": to, "body": body, "sender": sender or None, "messaging_service": service or None,
        "status_callback": callback or None, "validity": validity,
    }  # fmt: skip


def _media(urls: list[str], form: Mapping[str, str]) -> tuple[str, ...]:
    """Check the addresses of media. They are not fetched, so what is behind them is not judged."""
    most = 1 if form["To"].startswith(_WHATSAPP) else _MEDIA_LIMIT
    if len(urls) > most:
        raise Refused(21623, f"Number of media files exceeds allowed limit of {most}.")
    for url in urls:
        if not _is_web_address(url):
            raise Refused(21620, f"Invalid media URL(s): {url}")
    return tuple(urls)


def _filled_in(sid: str, variables: str | None) -> str:
    """Return the stand-in for a content template's text, which only Twilio knows: its id and its variables' values."""
    if not _CONTENT.fullmatch(sid):
        raise Refused(21655, "The ContentSid parameter is invalid.")
    try:
        given = json.loads(variables or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Refused(21656, "The ContentVariables parameter is invalid.")
    return " ".join([sid, *given.values()])


def _is_web_address(url: str) -> bool:
    # It is requested as it stands, so nothing may be in it that ends a line.
    if len(url) > _CALLBACK_LIMIT or not (url.isascii() and url.isprintable() and " " not in url):
        return False
    try:
        parsed = URL(url, encoded=True)
        # A port that is none is found only now. Twilio takes no underscore in the host, which is how the names of
        # containers often look.
        return parsed.scheme in {"http", "https"} and bool(parsed.host) and "_" not in str(parsed.host)
    except ValueError:
        return False


def _sent_within(name: str, value: str) -> tuple[datetime, datetime]:
    """Read ``DateSent``, ``DateSent<`` or ``DateSent>``: return the first moment it allows and the first one behind."""
    # Twilio's documents write "DateSent>=2026-01-31", in which the first "=" ends the name.
    try:
        moment, length = datetime.fromisoformat(value), timedelta(seconds=1)
    except ValueError as error:
        raise Refused(_BAD_REQUEST, f"Invalid parameter {name}") from error
    if len(value) == len("2026-01-31"):
        length = timedelta(days=1)
    # Twilio's dates are to the second.
    start = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).replace(microsecond=0)
    match name:
        case "DateSent":
            return start, start + length
        case "DateSent<":
            return datetime.min.replace(tzinfo=UTC), start + length
        case "DateSent>":
            return start, datetime.max.replace(tzinfo=UTC)
        case _:
            raise Refused(_BAD_REQUEST, f"Invalid parameter {name}")


def _page(texts: list[SentText], query: Mapping[str, str]) -> dict[str, object]:
    """Return one page; it begins behind the message that ``PageToken`` names, so new ones don't shift it."""
    try:
        size = min(max(int(query.get("PageSize", _PAGE_SIZE)), 1), _PAGE_SIZE_LIMIT)
        number = max(int(query.get("Page", 0)), 0)
    except ValueError as error:
        raise Refused(_BAD_REQUEST, "Invalid parameter PageSize") from error
    token = query.get("PageToken", "").removeprefix("PA")
    sids = [t.sid for t in texts]
    start = sids.index(token) + 1 if token in sids else number * size
    shown = texts[start : start + size]
    filters = [(k, v) for k, v in query.items() if k not in {"Page", "PageSize", "PageToken"}]

    def uri(*place: tuple[str, str | int]) -> str:
        return f"{twilio_json.messages_uri()}?{urlencode([*filters, ('PageSize', size), *place])}"

    more = start + size < len(texts)
    return {
        "messages": [twilio_json.message(t) for t in shown],
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + len(shown) - 1 if shown else start,
        "uri": uri(("Page", number)),
        "first_page_uri": uri(("Page", 0)),
        "next_page_uri": uri(("Page", number + 1), ("PageToken", f"PA{shown[-1].sid}")) if more else None,
        "previous_page_uri": uri(("Page", number - 1)) if number else None,
    }


def unauthorised(request: web.Request) -> web.Response | None:
    """Return the refusal of a request that does not bring the account and its token, or names another account."""
    expected = "Basic " + base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()
    if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected.encode()):
        return error(20003, "Authenticate")
    if request.match_info.get("account", ACCOUNT_SID) != ACCOUNT_SID:
        return error(20404, f"The requested resource {request.path} was not found")
    return None


def refused(answer: Answer) -> web.Response:
    """Return the refusal that a rule asks for."""
    code = answer.error_code if isinstance(answer.error_code, int) else _CODES.get(answer.status or 500)
    return error(code, "Refused as a sandbox rule says." if code else "Internal Server Error", answer.status)


def error(code: int | None, message: str, status: int | None = None) -> web.Response:
    """Return a refusal as Twilio writes it; the status follows from the code unless given."""
    status = status or _STATUSES.get(code or 0, 400)
    told = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return json_response(told, status)
