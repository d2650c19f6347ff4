"""Twilio's requests to us: status callbacks, and the texts that people write to our senders.

Twilio signs each request with the account's auth token for the public URL that we gave it, so proxies in between make
no difference.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from knocktwice_worker.channels.channel import CallbackRoute
from knocktwice_worker.channels.reports import Heard, NotBelieved, WrittenText
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.channels.twilio.signature import is_genuine
from knocktwice_worker.channels.twilio.sms import CALLBACK_PATH, NAME

if TYPE_CHECKING:
    from knocktwice_worker.channels.reports import Arrived
    from knocktwice_worker.channels.twilio.reports import TwilioReports

_FORM = "application/x-www-form-urlencoded"
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
#: An address, on WhatsApp and other channels with the channel's name before it: a number, a short code or a name.
_ADDRESS = re.compile(r"(?:([a-z]+):)?([^\x00-\x1f:]{1,40})")
#: An empty answer to the person, because Twilio itself confirms STOP and START and answers HELP.
_NO_REPLY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
_SIGNATURE = ("X-Twilio-Signature", "Twilio's signature for the public URL and these fields.")

STATUS = CallbackRoute(
    CALLBACK_PATH,
    "status",
    "Take a report on what became of a message. Repeats, late ones and any order are harmless.",
    signature=_SIGNATURE,
    form=(
        "Twilio's parameters of a status callback, whatever else it adds to them.",
        {"MessageSid": "SM" + "0" * 32, "MessageStatus": "delivered", "ErrorCode": ""},
    ),
)
INBOUND = CallbackRoute(
    CALLBACK_PATH + "/inbound",
    "inbound",
    "Take a text that somebody wrote: STOP ends texts to this number, START allows them again.",
    signature=_SIGNATURE,
    form=(
        "Twilio's parameters of an incoming message, whatever else it adds to them.",
        {"MessageSid": "SM" + "0" * 32, "From": "+16505550100", "Body": "STOP"},
    ),
    reply=(_NO_REPLY, "text/xml"),
)


class _Signed:
    """An address whose requests Twilio signs.

    Args:
        path: the path of the address.
        public_url: the address at which the internet reaches the gateway.
        token: the account's auth token.
    """

    def __init__(self, path: str, *, public_url: str | None, token: str | None) -> None:
        self._path = path
        self._public_url = public_url
        self._token = token

    def fields(self, arrived: Arrived) -> dict[str, str]:
        """Return the fields of a request that Twilio has signed for this address.

        Raises:
            NotBelieved: the signature is missing or wrong, or a setting for its verification is missing.
        """
        if self._public_url is None or self._token is None:
            raise NotBelieved(_REFUSED, unset="KNOCKTWICE_PUBLIC_URL or TWILIO_AUTH_TOKEN")
        url = self._public_url.rstrip("/") + self._path + (f"?{arrived.query}" if arrived.query else "")
        fields, body = _fields(arrived)
        signature = arrived.headers.get("x-twilio-signature", "")
        if not is_genuine(token=self._token, url=url, signature=signature, form=fields, body=body):
            raise NotBelieved(_REFUSED)
        return dict(fields)


class StatusReceiver(_Signed):
    """Receives status callbacks. ``reports`` verifies our signed intents in the addresses."""

    def __init__(self, reports: TwilioReports, *, public_url: str | None, token: str | None) -> None:
        super().__init__(STATUS.path, public_url=public_url, token=token)
        self._reports = reports

    def receive(self, arrived: Arrived) -> Heard:
        """Return the report in a callback."""
        form = self.fields(arrived)
        query = dict(parse_qsl(arrived.query, keep_blank_values=True))
        intent = self._reports.intent_of(query.get("intent", ""), query.get("sig", ""))
        report = read_callback(form, arrived.at, intent)
        return Heard([report] if report else [])


class InboundReceiver(_Signed):
    """Receives the texts that people write."""

    def __init__(self, *, public_url: str | None, token: str | None) -> None:
        super().__init__(INBOUND.path, public_url=public_url, token=token)

    def receive(self, arrived: Arrived) -> Heard:
        """Return the text in a request."""
        form = self.fields(arrived)
        (channel, writer), (_, sender) = _address(form.get("From", "")), _address(form.get("To", ""))
        sid = form.get("MessageSid") or form.get("SmsSid") or ""
        texts = []
        if writer and _SID.fullmatch(sid):
            words, opt_out = form.get("Body", ""), form.get("OptOutType")
            texts.append(WrittenText(sid, writer, words, opt_out, NAME, channel, sender or None))
        return Heard(texts=texts, reply=_NO_REPLY, media_type="text/xml")


_REFUSED = "X-Twilio-Signature does not fit this request and the public URL"


def _address(value: str) -> tuple[str, str]:
    """Return the channel and the number in an address; empty texts if it is none."""
    found = _ADDRESS.fullmatch(value.strip())
    return (found[1] or "sms", found[2].strip()) if found else ("", "")


def _fields(arrived: Arrived) -> tuple[list[tuple[str, str]], bytes | None]:
    """Return the fields, and the body if the signature covers its hash."""
    try:
        if arrived.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            return parse_qsl(arrived.body.decode(), keep_blank_values=True, max_num_fields=200), None
        content = json.loads(arrived.body)
    except (ValueError, RecursionError):
        raise NotBelieved(_REFUSED) from None
    if not isinstance(content, dict):
        raise NotBelieved(_REFUSED)
    return [(name, str(value)) for name, value in content.items() if isinstance(value, str | int)], arrived.body
