"""SMS through any provider with an HTTP interface, as the operators' file describes it (``file.py``)."""

from __future__ import annotations

import base64
import json
import os
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from knocktwice_worker.channels.http import Carrier, NoResponse, Request, Response, retry_after
from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.http_sms.file import CALLBACK_SLOT, LIST_SLOTS, MEDIA_SLOT, SLOTS, Means
from knocktwice_worker.channels.http_sms.terms import MARK, Secrets, secrets_of
from knocktwice_worker.channels.messages import ListedMessage, StepMessage
from knocktwice_worker.channels.outcomes import CredentialsUnavailable, Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import Examination, Rate
from knocktwice_worker.content import media
from knocktwice_worker.notation.phone_numbers import spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from knocktwice_worker.channels.http_sms.callbacks import HttpCallbacks
    from knocktwice_worker.channels.http_sms.file import AnswerRule, ListEndpoint, ProviderSpec
    from knocktwice_worker.channels.reports import Books

#: What stands in a body for the media of a message.
_MEDIA = f"{{{MEDIA_SLOT}}}"
#: The wait after a refusal of our account. A person has to correct the account, so there is no hurry.
_ACCOUNT_PAUSE = timedelta(minutes=1)
#: The used share of the time for which a provider recognises a repeat. The rest is a reserve, because the last repeat
#: may have to wait until quiet hours are over.
_REPEAT_SHARE = 0.5
#: Ids of the built-in provider's messaging services, which other providers do not know.
_SERVICE = re.compile("MG[0-9a-zA-Z]{32}")
#: A time in seconds beyond the year 5138; a larger number is in milliseconds.
_MILLISECONDS = 10**11


class HttpSmsChannel:
    """One provider of the file.

    Args:
        spec: the file's description of the provider.
        usual_sender: the installation's usual sender; this provider replaces it by its own.
        callbacks: the provider's callbacks, if the file describes any.
        environment: the variables that secrets come from.
    """

    name = "sms"
    #: The provider has no list of reports; it only calls back.
    books: Books | None = None

    def __init__(
        self,
        spec: ProviderSpec,
        *,
        usual_sender: str | None = None,
        callbacks: HttpCallbacks | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.provider = spec.name
        self.listable = spec.list is not None
        self.repeats_within = timedelta(seconds=spec.idempotency.valid_s * _REPEAT_SHARE) if spec.idempotency else None
        #: SMS parts per second for each of its senders; 0: no limit.
        self.parts_per_s = spec.parts_per_s
        self._spec = spec
        self._usual_sender = usual_sender
        self._heard = callbacks
        self._callbacks = callbacks if spec.names_callback else None
        self._secrets = Secrets(environment)
        self._url = self._fill(spec.url, {}, _encoded)
        self._headers = {"accept": "application/json", "content-type": _content_type(spec)}
        self._headers |= {name: self._fill(text, {}) for name, text in spec.headers.items()}
        for name, text in spec.headers.items():
            # A secret from a file may contain any character, but a header must be ASCII.
            if not self._headers[name].isascii():
                self._secrets.missing += [f"{secret}, in ASCII," for secret in secrets_of(text)]
        if basic := spec.basic_auth:
            pair = f"{self._fill(basic.user, {})}:{self._fill(basic.password, {})}"
            self._headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        # Fill the body once without a message, so that all missing secrets are known.
        self._body(dict.fromkeys(SLOTS, ""))
        if spec.list is not None:
            self._fill(spec.list.url, dict.fromkeys(LIST_SLOTS, ""))

    def authorize(self) -> None:
        """Make sure that all secrets exist; the provider itself is not asked."""
        if self._secrets.missing:
            raise CredentialsUnavailable(f"{', '.join(self._secrets.missing)} not set (SMS provider {self.provider})")

    def authorize_callbacks(self) -> None:
        """Make sure that the secrets for the verification of its callbacks exist."""
        if self._heard is not None:
            self._heard.authorize()

    def examine(self) -> Examination:
        """Check the settings only, because the file describes no request that examines an account."""
        self.authorize()
        return Examination(works=True, finding="account and sender are set")

    def request(self, message: StepMessage) -> Request:
        """Encode one SMS."""
        text, addresses = media.parted(message.text)
        body = self._body(
            {
                "to": message.to,
                "to_digits": message.to.removeprefix("+"),
                "text": text,
                "sender": self._sender(message.sender),
                "id": message.intent,
                CALLBACK_SLOT: self._callbacks.url(message.intent) if self._callbacks else "",
            },
            addresses,
        )
        if self._spec.idempotency is None:
            return Request(self._url, self._headers, body)
        header = self._spec.idempotency.header
        headers = {**self._headers, header.lower(): message.intent} if header else self._headers
        return Request(self._url, headers, body, repeatable=True)

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read the answer. Only its status and error code are kept, because providers quote numbers and texts in it."""
        if isinstance(answer, NoResponse):
            return Unknown(answer.reason) if answer.sent else Retry(answer.reason)
        content = json_paths.parse(answer.body)
        for rule in self._spec.answers:
            if _fits(rule, answer.status, content):
                return self._ruled(rule, answer, content)
        return self._usual(answer, content)

    def list_messages(self, transport: Carrier, since: Mapping[str, datetime]) -> dict[str, list[ListedMessage]]:
        """Ask the provider for the messages to some numbers. Numbers without a complete answer are left out."""
        spec = self._spec.list
        if spec is None or self._secrets.missing:
            return {}
        requests = [
            Request(
                self._fill(spec.url, _list_slots(number, at), _encoded), self._headers, method="GET", repeatable=True
            )
            for number, at in since.items()
        ]
        found: dict[str, list[ListedMessage]] = {}
        for (number, at), answer in zip(since.items(), transport.send(requests), strict=True):
            messages = self._page(spec, answer)
            if messages is not None:
                found[number] = [m for m in messages if _same(m.to, number) and m.date_created >= at]
        return found

    def is_message(self, listed: ListedMessage, message: StepMessage) -> bool:
        """Whether a listed message is the one that we sent, by our own reference or else by its text."""
        spec = self._spec.list
        if spec is not None and spec.reference is not None:
            return listed.reference == message.intent
        said, addresses = media.parted(message.text)
        # A provider may write links behind a text whose media an operator does not take.
        return said in listed.body if addresses else listed.body == said

    def carries(self, text: str) -> bool:
        """Whether the provider can send a message; one with media needs a place for media in the file's request."""
        return self._spec.takes_media or not media.parted(text)[1]

    def pace(self, sender: str | None) -> Rate:
        """Return the pace of a sender of this provider."""
        return Rate(f"{self.name}:{self.provider}:{self.sender_of(sender) or ''}", self.parts_per_s)

    def sender_of(self, sender: str | None) -> str | None:
        """Return the sender that this provider uses in place of ``sender``."""
        return self._sender(sender) or None

    def _sender(self, sender: str | None) -> str:
        own = self._spec.sender or ""
        if sender is None or sender in self._spec.senders:
            return self._spec.senders.get(sender or "", own)
        return own if sender == self._usual_sender or _SERVICE.fullmatch(sender) else sender

    def _ruled(self, rule: AnswerRule, answer: Response, content: object) -> Outcome:
        after = retry_after(answer) or (None if rule.after_s is None else timedelta(seconds=rule.after_s))
        said = self._said(answer, content)
        match rule.means:
            case Means.SENT:
                return self._sent(answer, content)
            case Means.REJECTED:
                return Rejected(rule.reason or "refused", said)
            case Means.OPTED_OUT:
                return Rejected("opted_out", said, opted_out=True)
            case Means.RETRY:
                return Retry(said, after)
            case Means.OPERATOR:
                return Retry(said, after or _ACCOUNT_PAUSE, operators=True)
            case Means.TOO_FAST:
                return Retry(said, after, too_fast=True)
            case Means.UNKNOWN:
                return Unknown(said)

    def _usual(self, answer: Response, content: object) -> Outcome:
        """Read an answer that no rule matches, by the usual meaning of its HTTP status."""
        said = self._said(answer, content)
        match answer.status:
            case status if 200 <= status < 300:
                return self._sent(answer, content)
            case 429:
                return Retry(said, retry_after(answer), too_fast=True)
            case 401 | 403 | 404:
                return Retry(f"{self.provider} refuses our account ({answer.status})", _ACCOUNT_PAUSE, operators=True)
            case status if 400 <= status < 500 and status != 408:
                return Rejected("refused", said)
            case _:
                return Unknown(said)

    def _said(self, answer: Response, content: object) -> str:
        """Return the description of an answer for people: the provider, the status and the error code."""
        code = json_paths.code(json_paths.at(content, self._spec.error)) if self._spec.error else None
        return f"{self.provider} {answer.status}" + ("" if code is None else f" {code}")

    def _sent(self, answer: Response, content: object) -> Outcome:
        id_ = json_paths.id_of(self.provider, json_paths.at(content, self._spec.id))
        return Unknown(f"{self.provider} answered {answer.status} without an id") if id_ is None else Sent(id_)

    def _page(self, spec: ListEndpoint, answer: Response | NoResponse) -> list[ListedMessage] | None:
        if isinstance(answer, NoResponse) or answer.status != 200:
            return None
        content = json_paths.parse(answer.body)
        items = content if spec.items is None else json_paths.at(content, spec.items)
        if not isinstance(items, list) or len(items) >= spec.most:
            # In an incomplete list a sent message would seem missing, so the list is not used.
            return None
        messages = [self._listed(spec, item) for item in items]
        return None if None in messages else [m for m in messages if m is not None]

    def _listed(self, spec: ListEndpoint, item: object) -> ListedMessage | None:
        id_, to = (
            json_paths.id_of(self.provider, json_paths.at(item, spec.id)),
            json_paths.text(json_paths.at(item, spec.to)),
        )
        created = _time(json_paths.at(item, spec.created))
        if id_ is None or not to or created is None:
            return None
        body = json_paths.text(json_paths.at(item, spec.text)) if spec.text else ""
        reference = json_paths.text(json_paths.at(item, spec.reference)) if spec.reference else None
        return ListedMessage(id_, to, body, "", created, reference=reference)

    def _body(self, slots: Mapping[str, str], addresses: Sequence[str] = ()) -> bytes:
        if self._spec.form:
            form = {
                name: list(addresses) if text == _MEDIA else self._fill(text, slots)
                for name, text in self._spec.form.items()
            }
            return urlencode(form, doseq=True).encode()
        return json.dumps(self._filled(self._spec.body, slots, addresses), ensure_ascii=False).encode()

    def _filled(self, value: Any, slots: Mapping[str, str], addresses: Sequence[str]) -> Any:
        match value:
            case str():
                return list(addresses) if value == _MEDIA else self._fill(value, slots)
            case dict():
                kept = {name: part for name, part in value.items() if addresses or not _only_media(part)}
                return {name: self._filled(part, slots, addresses) for name, part in kept.items()}
            case list():
                items = [addresses if part == _MEDIA else [self._filled(part, slots, addresses)] for part in value]
                return [item for several in items for item in several]
        return value

    def _fill(self, text: str, slots: Mapping[str, str], encode: Callable[[str], str] = str) -> str:
        # All slots are filled in one pass, so that a text which looks like a slot is not replaced.
        return MARK.sub(lambda m: encode(self._secrets.get(m[1]) if m[1] else slots[m[2]]), text)


class RemovedProvider(HttpSmsChannel):
    """A stand-in for a provider that messages still name and the file no longer contains."""

    def __init__(self, name: str) -> None:
        self.provider, self.listable, self.repeats_within, self.parts_per_s = name, False, None, 0

    def authorize(self) -> None:
        """Refuse to send, because the provider was removed."""
        raise CredentialsUnavailable(f"SMS provider {self.provider} is no longer in KNOCKTWICE_SMS_PROVIDERS_FILE")

    def authorize_callbacks(self) -> None:
        """Accept, because no callback address of the provider exists any more."""

    def examine(self) -> Examination:
        """Report that the provider was removed."""
        self.authorize()
        return Examination(works=False, finding="removed")

    def carries(self, text: str) -> bool:
        """Return True: it sends nothing at all, which :meth:`authorize` says."""
        del text
        return True

    def sender_of(self, sender: str | None) -> str | None:
        """Return the sender unchanged."""
        return sender

    def list_messages(self, *_: object) -> dict[str, list[ListedMessage]]:
        """Return no messages, because there is no provider to ask."""
        return {}


def _only_media(part: object) -> bool:
    """Whether a part of a body holds nothing but media, so that a message without media leaves it out."""
    return part in (_MEDIA, [_MEDIA])


def _content_type(spec: ProviderSpec) -> str:
    return "application/x-www-form-urlencoded" if spec.form else "application/json"


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _list_slots(number: str, since: datetime) -> dict[str, str]:
    at = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"to": number, "to_digits": number.removeprefix("+"), "since": at}


def _fits(rule: AnswerRule, status: int, content: object) -> bool:
    if rule.statuses and not {str(status), f"{status // 100}xx"} & set(rule.statuses):
        return False
    return all(
        json_paths.word(json_paths.at(content, path))
        in {json_paths.word(v) for v in (wanted if isinstance(wanted, tuple) else (wanted,))}
        for path, wanted in rule.where.items()
    )


def _same(listed: str, number: str) -> bool:
    """Whether a provider's list means our number, with or without its plus and in whichever spelling."""
    return spelled("+" + re.sub(r"\D", "", listed)) == spelled(number)


def _time(value: object) -> datetime | None:
    """Read a time: ISO 8601, RFC 2822, or seconds or milliseconds since 1970. Without a zone it is UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value if value < _MILLISECONDS else value / 1000, UTC)
        if not isinstance(value, str):
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
