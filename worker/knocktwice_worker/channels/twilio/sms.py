"""SMS through Twilio's Messages API.

https://www.twilio.com/docs/messaging/api/message-resource — a contract test compares our requests with Twilio's
published OpenAPI document. Twilio has no idempotency key, so after an unclear answer (:class:`Unknown`) a message is
not simply sent again: :meth:`TwilioSmsChannel.list_messages` shows whether Twilio accepted it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from knocktwice_worker.channels.http import Carrier, NoResponse, Request, Response, retry_after
from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.messages import ListedMessage, StepMessage
from knocktwice_worker.channels.outcomes import CredentialsUnavailable, Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import Examination, Rate
from knocktwice_worker.channels.reports import OPTED_OUT
from knocktwice_worker.channels.twilio import account
from knocktwice_worker.content import media
from knocktwice_worker.notation.phone_numbers import spelled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from knocktwice_worker.channels.reports import Books

#: The provider's name in rows and ledgers.
NAME = "twilio"
#: https://www.twilio.com/docs/api/errors — errors of the number itself.
_INVALID_NUMBER = {21211, 21214, 21217, 21265, 21268, 21401, 21421, 21614}
_REASONS = {
    21602: "empty_text",
    OPTED_OUT: "opted_out",
    21612: "unreachable_from_sender",
    21617: "too_long",
    21635: "landline",
    21620: "invalid_media",
    21623: "invalid_media",
    **dict.fromkeys(_INVALID_NUMBER, "invalid_number"),
}
#: Errors that the operator must mend, and what is wrong. None of them says anything of the recipient.
OPERATORS = {
    20003: "the account or its token is wrong: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN",
    20005: "the account is not active",
    20006: "the account may not do that",
    21408: "the account may not text this region: allow it in Twilio's console, or leave it out of KNOCKTWICE_SMS_COUNTRIES",
    21603: "no sender is set",
    21606: "the sender is not the account's, or cannot send this",
    21607: "the sender cannot send this",
    21608: "a trial account texts verified numbers only",
    21212: "the sender is no number, short code or name that Twilio takes",
    21618: "the sender may not text this region",
    21267: "a trial account may not use a name as its sender",
    21659: "the sender is not Twilio's",
    21660: "the sender is not the account's",
    21661: "the sender cannot send SMS",
    21703: "the Messaging Service has no senders",
    21704: "the Messaging Service has no senders for this region",
    21705: "the Messaging Service does not exist",
    30002: "the account is suspended",
}
#: The sender's queue at Twilio is full; the message was not accepted.
QUEUE_FULL = 21611
_QUEUE_PAUSE = timedelta(seconds=30)
#: The wait after a refusal of our account. A person has to correct the account, so there is no hurry.
_ACCOUNT_PAUSE = timedelta(minutes=1)
_PAGE_SIZE = 100
#: The form of a Messaging Service's id. ("MGM" alone is a sender's name.)
_SERVICE = re.compile("MG[0-9a-zA-Z]{32}")
#: Seconds for which Twilio holds a message at most, and if nothing is said.
_LONGEST_VALIDITY = 36_000
#: Where callbacks arrive, below the public URL.
CALLBACK_PATH = "/callbacks/twilio"
#: The most pages read of one number's list.
_MOST_PAGES = 10


class TwilioSmsChannel:
    """Twilio's Programmable Messaging.

    Args:
        url: Twilio's address.
        account_sid, auth_token: the account.
        sender: a number in E.164, or a Messaging Service (``MG…``).
        public_url: the address at which Twilio's callbacks reach us; ``None``: no callbacks are asked for.
        secret: the key that signs the callbacks' intents.
        per_s: parts (on other channels: messages) per second; 0 leaves the pace to Twilio's queue.
        books: Twilio's list of sent messages.
    """

    name = "sms"
    provider = NAME
    listable = True
    #: Twilio has no idempotency key, so it recognises no repeat.
    repeats_within: timedelta | None = None
    #: The name of the setting that names the sender.
    sender_setting = "KNOCKTWICE_TWILIO_FROM"

    def __init__(
        self,
        *,
        url: str,
        account_sid: str | None,
        auth_token: str | None,
        sender: str | None,
        public_url: str | None,
        secret: str,
        per_s: float = 0,
        books: Books | None = None,
    ) -> None:
        self.books = books
        self._per_s = per_s
        self._missing = [
            name
            for name, value in (
                ("TWILIO_ACCOUNT_SID", account_sid),
                ("TWILIO_AUTH_TOKEN", auth_token),
                (self.sender_setting, sender),
            )
            if not value
        ]
        self._origin = url.rstrip("/")
        self._account = str(account_sid), str(auth_token)
        self._messages = f"{self._origin}/2010-04-01/Accounts/{account_sid}/Messages.json"
        basic = base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._headers = {"authorization": f"Basic {basic}", "accept": "application/json"}
        self._form_headers = {**self._headers, "content-type": "application/x-www-form-urlencoded"}
        self._usual_sender = sender
        self._default_sender = str(sender)
        self._from = {self._default_sender: urlencode(self._sender(self._default_sender))}
        self._public_url = public_url
        self._secret = secret.encode()

    def authorize(self) -> None:
        """Make sure that account and sender are set. Twilio itself is not asked."""
        if self._missing:
            raise CredentialsUnavailable(f"{', '.join(self._missing)} not set")

    def authorize_callbacks(self) -> None:
        """Accept: the account's settings are enough."""

    def examine(self) -> Examination:
        """Ask Twilio whether the account is active and owns the sender. For people, because it takes seconds.

        Raises:
            CredentialsUnavailable: a setting is missing.
        """
        self.authorize()
        sid, token = self._account
        sender = self._origin_of(self._default_sender)
        return account.examine(url=self._origin, account_sid=sid, auth_token=token, sender=sender)

    def request(self, message: StepMessage) -> Request:
        """Encode one SMS."""
        sender = message.sender or self._default_sender
        # Encoded senders are kept, because there are few. All requests share one object of headers, which the HTTP
        # engine sets once.
        origin = self._from.get(sender) or self._from.setdefault(sender, urlencode(self._sender(sender)))
        form: dict[str, str | list[str]] = {"To": self._address(message.to), **self._content(message)}
        if message.useful_for is not None and (seconds := int(message.useful_for.total_seconds())) < _LONGEST_VALIDITY:
            form["ValidityPeriod"] = str(max(seconds, 1))
        if self._public_url:
            form["StatusCallback"] = self._callback(message.intent)
        return Request(self._messages, self._form_headers, f"{origin}&{urlencode(form, doseq=True)}".encode())

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read Twilio's answer. Its error texts quote the number, so only the code is kept."""
        if isinstance(answer, NoResponse):
            return Unknown(answer.reason) if answer.sent else Retry(answer.reason)
        content = _json(answer.body)
        code = content.get("code")
        if answer.status in (200, 201):
            return Sent(str(content["sid"])) if content.get("sid") else Unknown("Twilio answered 201 without a sid")
        if answer.status == 429:
            return Retry(f"Twilio {code or 429}", retry_after(answer), too_fast=True)
        if answer.status >= 500 or answer.status == 408:
            return Unknown(f"Twilio {answer.status}")
        if code == QUEUE_FULL:
            return Retry(f"Twilio {code}", retry_after(answer) or _QUEUE_PAUSE, too_fast=True)
        if isinstance(code, int) and code in OPERATORS:
            return Retry(f"Twilio {code}: {OPERATORS[code]}", _ACCOUNT_PAUSE, operators=True)
        if answer.status in (401, 403, 404):
            return Retry(f"Twilio refuses our account ({code or answer.status})", _ACCOUNT_PAUSE, operators=True)
        reason = _REASONS.get(code, "refused") if isinstance(code, int) else "refused"
        return Rejected(reason, f"Twilio {code or answer.status}", opted_out=code == OPTED_OUT)

    def list_messages(self, transport: Carrier, since: Mapping[str, datetime]) -> dict[str, list[ListedMessage]]:
        """Ask Twilio for the messages to some numbers.

        The list is read newest first. Twilio's filter ``DateSent`` is not used, because a queued message has no such
        date yet.

        Args:
            since: for each number, the moment from which to read (aware).

        Returns:
            For each number that Twilio answered for, the messages created since then, newest first.
        """
        if self._missing:
            return {}
        pages = {n: f"{self._messages}?{urlencode({'To': self._address(n), 'PageSize': _PAGE_SIZE})}" for n in since}
        found: dict[str, list[ListedMessage]] = {number: [] for number in since}
        for _ in range(_MOST_PAGES):
            answers = transport.send(
                [Request(url, self._headers, method="GET", repeatable=True) for url in pages.values()]
            )
            rest: dict[str, str] = {}
            for number, answer in zip(pages, answers, strict=True):
                page = _page(answer, self._origin)
                if page is None:
                    # In an incomplete list a sent message would seem missing, so the list is not used.
                    found.pop(number, None)
                    continue
                messages, more = page
                to = self._address(number)
                found[number] += [m for m in messages if spelled(m.to) == to and m.date_created >= since[number]]
                if more and messages and messages[-1].date_created >= since[number]:
                    rest[number] = more
            pages = rest
            if not pages:
                return found
        return {number: messages for number, messages in found.items() if number not in pages}

    def is_message(self, listed: ListedMessage, message: StepMessage) -> bool:
        """Whether a listed message may be the one that we sent: it has its text, and its sender if one was named.

        Twilio's list does not show the addresses of media.
        """
        return self._says(listed, message.text) and self._is_from(listed, message.sender)

    def carries(self, text: str) -> bool:
        """Return True: Twilio takes media from every sender, and sends a link where operators know no MMS."""
        del text
        return True

    def sender_of(self, sender: str | None) -> str | None:
        """Return the sender from which a message goes; a Messaging Service is its id."""
        return sender or self._usual_sender

    def pace(self, sender: str | None) -> Rate:
        """Return the pace of a sender, because mobile operators count the parts of each sender."""
        return Rate(f"{self.name}:{sender or self._usual_sender or ''}", self._per_s)

    def _is_from(self, listed: ListedMessage, sender: str | None) -> bool:
        if sender is None:
            return True
        return self._origin_of(sender) == (listed.service if _SERVICE.fullmatch(sender) else listed.sender)

    def _says(self, listed: ListedMessage, text: str) -> bool:
        said, addresses = media.parted(text)
        if addresses:
            # Where operators know no MMS, Twilio writes a link behind the text.
            return said in listed.body
        # A trial account's messages have a sentence of Twilio's before the text.
        return listed.body.endswith(said)

    def _address(self, number: str) -> str:
        """Return a number in Twilio's form for this channel."""
        return number

    def _sender(self, sender: str) -> dict[str, str]:
        return {"MessagingServiceSid" if _SERVICE.fullmatch(sender) else "From": self._origin_of(sender)}

    def _origin_of(self, sender: str) -> str:
        return sender if _SERVICE.fullmatch(sender) else self._address(sender)

    def _content(self, message: StepMessage) -> dict[str, str | list[str]]:
        said, addresses = media.parted(message.text)
        return {"Body": said, "MediaUrl": addresses} if addresses else {"Body": said}

    def _callback(self, intent: str) -> str:
        query = urlencode({"intent": intent, "sig": intent_signature(self._secret, intent)})
        return f"{str(self._public_url).rstrip('/')}{CALLBACK_PATH}?{query}"


def intent_signature(secret: bytes, intent: str) -> str:
    """Return the signature that proves that an intent in a callback's address is ours."""
    digest = hmac.digest(secret, f"twilio-callback:{intent}".encode(), hashlib.sha256)[:16]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def next_page(origin: str, uri: object) -> str | None:
    """Return the address of a list's next page; only on the same server, which may see our credentials."""
    return origin + uri if isinstance(uri, str) and re.match(r"/(?!/)", uri) else None


def _json(body: bytes) -> dict[str, Any]:
    value = json_paths.parse(body)
    return value if isinstance(value, dict) else {}


def _page(answer: Response | NoResponse, origin: str) -> tuple[list[ListedMessage], str | None] | None:
    if isinstance(answer, NoResponse) or answer.status != 200:
        return None
    content = _json(answer.body)
    try:
        messages = [
            ListedMessage(
                m["sid"],
                m["to"],
                m["body"],
                m["status"],
                parsedate_to_datetime(m["date_created"]),
                m.get("from"),
                m.get("messaging_service_sid"),
            )
            for m in content["messages"]
        ]
    except (KeyError, TypeError, ValueError):
        return None
    return messages, next_page(origin, content.get("next_page_uri"))
