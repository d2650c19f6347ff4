"""Twilio's reports about messages: read from its callbacks, from its list and from single messages.

https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks — callbacks contain no price.
Twilio calculates it some time after the message went out, and only its list contains it.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.reports import PRICE, StatusReport, read_intent
from knocktwice_worker.channels.twilio.sms import NAME, OPERATORS, QUEUE_FULL, intent_signature, next_page
from knocktwice_worker.lifecycle import LOST, ProviderState, Untextable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from knocktwice_worker.channels.http import Carrier

#: Statuses that become a report. Others such as ``queued`` and ``sending`` only say that the message is on its way.
REPORTED = frozenset({"sent", "delivered", "undelivered", "failed", "read"})
#: https://www.twilio.com/docs/api/errors — codes that speak of the number. 30007 (filtered) speaks of the text.
_UNTEXTABLE = {
    30003: Untextable.UNREACHABLE,
    30004: Untextable.BLOCKED,
    30005: Untextable.UNKNOWN_NUMBER,
    30006: Untextable.LANDLINE,
    21211: Untextable.INVALID_NUMBER,
    21614: Untextable.INVALID_NUMBER,
    21265: Untextable.INVALID_NUMBER,
    21268: Untextable.INVALID_NUMBER,
    21635: Untextable.LANDLINE,
}
#: Codes of messages that Twilio had accepted, and that failed for what the operator must mend. Each means that the
#: message went to nobody: it is sent again. A Messaging Service chooses its sender late, so the codes of refusals come
#: as well.
_OPERATORS = OPERATORS | {
    QUEUE_FULL: "the sender's queue was full",
    30001: "the sender's queue was full, or the message waited in it for too long",
    30010: "the message costs more than the set maximum price",
    30018: "the recipient's operator wants the sender registered beforehand",
    30022: "the carriers' rate limit for the campaign of the sender (A2P 10DLC) was exceeded",
    30023: "the sender's daily limit of messages to the United States is reached",
    30024: "the sender is not provisioned with the recipient's operator",
    30027: "the sender's daily limit with T-Mobile is reached",
    30032: "the toll-free sender is not verified",
    30033: "the campaign of the sender (A2P 10DLC) is suspended",
    30034: "the sender is not registered to text numbers in the United States (A2P 10DLC)",
    30035: "the sender's registration (A2P 10DLC) is not complete",
    30037: "the account may not send messages",
    30040: "the recipient's operator wants the sender registered beforehand",
    30041: "the sender is not registered to text numbers in the United Kingdom",
    30454: "the account's limit of messages is reached",
    63001: "the channel refuses the account's authentication",
    63007: "the account has no such sender on this channel",
    63008: "the channel is not configured as it must be",
    63017: "the account sends more messages per second than it may",
    63018: "the sender's limit of messages on this channel is reached",
    63020: "the business account on this channel is not in order",
    63038: "the account's daily limit of messages is reached",
}
#: The size of Twilio's largest page.
_PAGE_SIZE = 1000
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")


class TwilioReports:
    """Twilio's list of sent messages, and the signed intents in its callback addresses.

    Args:
        url: Twilio's address.
        account_sid, auth_token: the account; without it no request is made.
        secret: the key that signs intents.
    """

    def __init__(self, *, url: str, account_sid: str | None, auth_token: str | None, secret: str) -> None:
        self._usable = bool(account_sid and auth_token)
        self._origin = url.rstrip("/")
        self._messages = f"{self._origin}/2010-04-01/Accounts/{account_sid}/Messages"
        basic = base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._headers = {"authorization": f"Basic {basic}", "accept": "application/json"}
        self._secret = secret.encode()

    def intent_of(self, intent: str, signature: str) -> tuple[str, int] | None:
        """Return the notification id and the step in a callback's address; ``None`` if we did not sign it."""
        expected = intent_signature(self._secret, intent)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            return None
        return read_intent(intent)

    def sent_between(self, transport: Carrier, start: datetime, end: datetime) -> Iterator[list[StatusReport]]:
        """Read the reports in Twilio's list about all messages sent in a span of time, page by page.

        Stops early if Twilio does not answer; the missing pages are read the next time.

        Args:
            start, end: aware; Twilio compares them to the second.
        """
        span = {"DateSent>": _moment(start), "DateSent<": _moment(end), "PageSize": _PAGE_SIZE}
        url: str | None = f"{self._messages}.json?{urlencode(span)}" if self._usable else None
        read: set[str] = set()
        while url and url not in read:
            read.add(url)
            (answer,) = transport.send([self._get(url)])
            content = _json(answer)
            messages = content.get("messages")
            yield [report for m in (messages if isinstance(messages, list) else ()) if (report := _listed(m, end))]
            url = next_page(self._origin, content.get("next_page_uri"))

    def fetch(self, transport: Carrier, ids: Sequence[str], now: datetime) -> list[StatusReport]:
        """Fetch the reports of single messages. Messages that Twilio does not answer for are left out."""
        if not self._usable:
            return []
        answers = transport.send([self._get(f"{self._messages}/{sid}.json") for sid in ids])
        return [report for answer in answers if (report := _listed(_json(answer), now))]

    def _get(self, url: str) -> Request:
        return Request(url, self._headers, method="GET", repeatable=True)


def read_callback(form: Mapping[str, str], at: datetime, intent: tuple[str, int] | None = None) -> StatusReport | None:
    """Read a status callback; ``None`` for a status without news, such as ``queued``.

    Args:
        form: its fields.
        at: the time of its arrival.
        intent: notification id and step from its signed address.
    """
    code = form.get("ErrorCode", "")
    return _report(
        at,
        form.get("MessageSid") or form.get("SmsSid"),
        form.get("MessageStatus") or form.get("SmsStatus"),
        int(code) if code.isdecimal() and len(code) < 10 else None,
        form.get("Price"),
        form.get("PriceUnit"),
        intent,
    )


def _listed(message: object, at: datetime) -> StatusReport | None:
    if not isinstance(message, dict):
        return None
    code = message.get("error_code")
    error = code if isinstance(code, int) and abs(code) < 10**9 else None
    said = (message.get("sid"), message.get("status"), error, message.get("price"), message.get("price_unit"))
    return _report(at, *said)


def _report(
    at: datetime,
    sid: object,
    status: object,
    error: int | None,
    price: object,
    unit: object,
    intent: tuple[str, int] | None = None,
) -> StatusReport | None:
    if not isinstance(sid, str) or not _SID.fullmatch(sid) or not isinstance(status, str) or status not in REPORTED:
        return None
    state = ProviderState(status)
    untextable = _UNTEXTABLE.get(error or 0) if state in LOST else None
    mend = _OPERATORS.get(error or 0) if state in LOST else None
    operators = mend and f"Twilio {error}: {mend}"
    if not isinstance(price, str) or not PRICE.fullmatch(price):
        return StatusReport(NAME, sid, state, at, error, intent, untextable=untextable, operators=operators)
    # Twilio writes a price that we pay as a negative number.
    unit = unit.upper() if isinstance(unit, str) and len(unit) == 3 and unit.isascii() else None
    said = (price.removeprefix("-"), unit)
    return StatusReport(NAME, sid, state, at, error, intent, *said, untextable=untextable, operators=operators)


def _json(answer: Response | NoResponse) -> dict[str, Any]:
    if isinstance(answer, NoResponse) or answer.status != 200:
        return {}
    value = json_paths.parse(answer.body)
    return value if isinstance(value, dict) else {}


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
