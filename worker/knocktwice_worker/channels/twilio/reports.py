"""What Twilio says became of messages: read from its callbacks, from its list and from single messages.

https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks — callbacks carry no price; Twilio
knows it some time after the message went out, and only its list tells.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from knocktwice_worker.channels.http import Carrier, NoResponse, Request, Response
from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.twilio.sms import intent_signature, next_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from knocktwice_worker.config import Settings

#: Statuses that say what became of a message; ``queued``, ``sending`` and their like say that it is on its way.
REPORTED = frozenset({"sent", "delivered", "undelivered", "failed", "read"})
#: The recipient has asked for no more texts. Through a Messaging Service Twilio says so only afterwards.
OPTED_OUT = 21610

#: Twilio's largest page.
_PAGE_SIZE = 1000
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
#: A price as providers write it.
PRICE = re.compile(r"-?\d{1,6}(\.\d{1,8})?")
_INTENT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Report:
    """What Twilio says became of a message.

    Attributes:
        status: one of :data:`REPORTED`.
        error: Twilio's code.
        price: what it cost, as a decimal number.
        unit: of the price, as ISO 4217 has it.
    """

    sid: str
    status: str
    error: int | None = None
    price: str | None = None
    unit: str | None = None


class TwilioReports:
    """Twilio's books about what it has sent, and the addresses by which it calls back.

    Args:
        url: Twilio's address.
        account_sid, auth_token: the account; without them nothing is asked.
        secret: signs the callbacks' intent.
    """

    def __init__(self, *, url: str, account_sid: str | None, auth_token: str | None, secret: str) -> None:
        self._usable = bool(account_sid and auth_token)
        self._origin = url.rstrip("/")
        self._messages = f"{self._origin}/2010-04-01/Accounts/{account_sid}/Messages"
        basic = base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._headers = {"authorization": f"Basic {basic}", "accept": "application/json"}
        self._secret = secret.encode()

    @classmethod
    def from_settings(cls, settings: Settings, *, secret: str) -> Self:
        """Build what the settings describe."""
        token = settings.twilio_auth_token
        return cls(
            url=settings.twilio_url,
            account_sid=settings.twilio_account_sid,
            auth_token=token.get_secret_value() if token else None,
            secret=secret,
        )

    def intent_of(self, intent: str, signature: str) -> tuple[str, int] | None:
        """Return notification id and step that a callback's address names; ``None`` if we did not sign it."""
        expected = intent_signature(self._secret, intent)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            return None
        return read_intent(intent)

    def sent_between(self, transport: Carrier, start: datetime, end: datetime) -> Iterator[list[Report]]:
        """Read what Twilio's list says of all messages sent in a span of time, page by page.

        It ends early when Twilio does not answer; what is missing then is read the next time.

        Args:
            start, end: aware; Twilio compares to the second.
        """
        span = {"DateSent>": _moment(start), "DateSent<": _moment(end), "PageSize": _PAGE_SIZE}
        url: str | None = f"{self._messages}.json?{urlencode(span)}" if self._usable else None
        read: set[str] = set()
        while url and url not in read:
            read.add(url)
            (answer,) = transport.send([self._get(url)])
            content = _json(answer)
            messages = content.get("messages")
            yield [report for m in (messages if isinstance(messages, list) else ()) if (report := _listed(m))]
            url = next_page(self._origin, content.get("next_page_uri"))

    def fetch(self, transport: Carrier, sids: Sequence[str]) -> list[Report]:
        """Ask Twilio what became of single messages; those that it does not answer for are missing from the result."""
        if not self._usable:
            return []
        answers = transport.send([self._get(f"{self._messages}/{sid}.json") for sid in sids])
        return [report for answer in answers if (report := _listed(_json(answer)))]

    def _get(self, url: str) -> Request:
        return Request(url, self._headers, method="GET", repeatable=True)


def read_intent(intent: str) -> tuple[str, int] | None:
    """Return the notification id and the step that a message's name in a provider's books says."""
    found = _INTENT.fullmatch(intent)
    return (found[1], int(found[2])) if found else None


def read_callback(form: Mapping[str, str]) -> Report | None:
    """Read a status callback; ``None`` for one that says nothing new, such as ``queued``."""
    code = form.get("ErrorCode", "")
    return _report(
        form.get("MessageSid") or form.get("SmsSid"),
        form.get("MessageStatus") or form.get("SmsStatus"),
        int(code) if code.isdecimal() and len(code) < 10 else None,
        form.get("Price"),
        form.get("PriceUnit"),
    )


def _listed(message: object) -> Report | None:
    if not isinstance(message, dict):
        return None
    code = message.get("error_code")
    error = code if isinstance(code, int) and abs(code) < 10**9 else None
    return _report(message.get("sid"), message.get("status"), error, message.get("price"), message.get("price_unit"))


def _report(sid: object, status: object, error: int | None, price: object, unit: object) -> Report | None:
    if not isinstance(sid, str) or not _SID.fullmatch(sid) or not isinstance(status, str) or status not in REPORTED:
        return None
    if not isinstance(price, str) or not PRICE.fullmatch(price):
        return Report(sid, status, error)
    # Twilio writes what it takes as a negative number.
    unit = unit.upper() if isinstance(unit, str) and len(unit) == 3 and unit.isascii() else None
    return Report(sid, status, error, price.removeprefix("-"), unit)


def _json(answer: Response | NoResponse) -> dict[str, Any]:
    if isinstance(answer, NoResponse) or answer.status != 200:
        return {}
    value = json_paths.parse(answer.body)
    return value if isinstance(value, dict) else {}


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
