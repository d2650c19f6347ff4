"""The operators' file of SMS providers, ``KNOCKTWICE_SMS_PROVIDERS_FILE``, checked before any process starts.

``docs/providers.md`` explains each field. Secrets are never written into the file: ``${NAME}`` stands for an
environment variable, ``${file:/path}`` for the content of a file.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from knocktwice_shared.messages import senders
from knocktwice_worker.channels.http_sms import mistakes
from knocktwice_worker.channels.http_sms.callback_rules import CallbackRules, InboundRules
from knocktwice_worker.channels.http_sms.terms import (
    MARK,
    BasicAuth,
    HeaderName,
    Number,
    Path,
    Scalar,
    Strict,
    only,
    secrets_of,
    slots_of,
    texts,
)
from knocktwice_worker.notation import declared_yaml
from knocktwice_worker.notation.declared_yaml import Unreadable

#: The slot for the callback address of the message.
CALLBACK_SLOT = "callback_url"
#: The slots in the body of a request that sends a message.
SLOTS = ("to", "to_digits", "text", "sender", "id", CALLBACK_SLOT)
#: The slot for the addresses of a message's media: a field that holds nothing else becomes a list of them, and is left
#: out of a message that has none.
MEDIA_SLOT = "media"
#: The slots in a request that lists the messages to a number.
LIST_SLOTS = ("to", "to_digits", "since")
_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|file:/.+")


class ProviderFileError(ValueError):
    """The file is missing or has a wrong value. The message names the field and the fix."""


class Means(StrEnum):
    """The meaning of a provider's answer for the message."""

    #: The provider accepted the message.
    SENT = "sent"
    #: The provider will never accept this message.
    REJECTED = "rejected"
    #: The provider refused the message, because the recipient has opted out.
    OPTED_OUT = "opted_out"
    #: The provider did not accept the message for a reason of its own, so another provider is tried at once.
    RETRY = "retry"
    #: The provider refuses us until the operator mends something: the account, the sender, a region. The message waits,
    #: or another provider takes it.
    OPERATOR = "operator"
    #: The provider did not accept the message, because it gets too many; it gets the message later, at a slower pace.
    TOO_FAST = "too_fast"
    #: The provider may or may not have accepted the message.
    UNKNOWN = "unknown"


class AnswerRule(Strict):
    """A rule about answers: the answers that it matches, and their meaning. The first rule that matches counts."""

    #: The HTTP statuses that it matches, such as 429 or ``5xx``; ``None``: all.
    status: int | str | tuple[int | str, ...] | None = None
    #: Path in the answer → the value, or the values, of which one must stand there.
    where: dict[Path, Scalar | tuple[Scalar, ...]] = Field({})
    #: The meaning of the answers that it matches.
    means: Means
    #: The ledger's word for a rejection.
    reason: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]{0,39}$")
    #: Seconds before the message is sent again, if the answer names no time.
    after_s: float | None = Field(None, ge=0, le=86_400)

    @property
    def statuses(self) -> tuple[str, ...]:
        """The status codes and classes such as ``5xx``, as text."""
        given = self.status if isinstance(self.status, tuple) else (self.status,)
        return tuple(str(s) for s in given if s is not None)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for status in self.statuses:
            if not re.fullmatch(r"[1-5](\d\d|xx)", status):
                raise ValueError(f"status {status!r} is none; write 429, 5xx, or a list of them")
        if not self.statuses and not self.where:
            raise ValueError("fits every answer; name a status, or where the answer says what")
        if (self.means is Means.REJECTED) != (self.reason is not None):
            raise ValueError("a reason, such as invalid_number, belongs to 'means: rejected', and that needs one")
        if self.after_s is not None and self.means not in (Means.RETRY, Means.TOO_FAST, Means.OPERATOR):
            raise ValueError("after_s belongs to 'means: retry', 'means: too_fast' or 'means: operator'")
        return self


class Idempotency(Strict):
    """How a provider knows a repeat, and for how many seconds: by a header, or by the body's field with ``{id}``."""

    header: HeaderName | None = None
    valid_s: float = Field(86_400, ge=600)


class ListEndpoint(Strict):
    """The request that lists the messages to a number, and the paths of the values in its answer."""

    #: The address, with the slots ``{to}`` or ``{to_digits}``, and ``{since}``.
    url: str
    #: The path of the list in the answer; ``None``: the answer is the list.
    items: Path | None = None
    #: The path of the provider's id in a message.
    id: Path
    #: The path of the recipient's number in a message.
    to: Path
    #: The path of the time of creation in a message.
    created: Path
    #: The path of the text in a message.
    text: Path | None = None
    #: The path of our own id in a message.
    reference: Path | None = None
    #: The most messages that the provider lists; a list of this length may be incomplete and is not used.
    most: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _recognisable(self) -> Self:
        if self.text is None and self.reference is None:
            raise ValueError("name text or reference, by which a message can be known")
        slots = list(slots_of(self.url))
        only(slots, LIST_SLOTS)
        if not {"to", "to_digits"} & set(slots):
            raise ValueError("url must ask for one number: put {to} or {to_digits} into it")
        return self


class ProviderSpec(Strict):
    """One provider of the file."""

    #: The provider's name in rows, the ledger and callback addresses.
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,29}$")
    #: The provider's share of the messages, relative to the other weights.
    weight: Number = Field(ge=0, le=1_000_000)
    #: The address of the request that sends a message.
    url: str
    #: The method of the request.
    method: Literal["POST"] = "POST"
    #: The headers of all requests.
    headers: dict[str, str] = Field({})
    #: User and password of HTTP basic authentication.
    basic_auth: BasicAuth | None = None
    #: The JSON body of the request, with slots.
    body: dict[str, Any] = Field(alias="json", default={})
    #: The form of the request, with slots; in place of a JSON body.
    form: dict[str, str] = Field({})
    #: The path of the message's id in the answer.
    id: Path
    #: The path of the error code in the answer.
    error: Path | None = None
    #: Rules about answers; without a match the HTTP status decides.
    answers: tuple[AnswerRule, ...] = ()
    #: The provider's recognition of repeats; ``None``: it recognises none.
    idempotency: Idempotency | None = None
    #: The request that lists the messages to a number; ``None``: there is none.
    list: ListEndpoint | None = None
    #: The provider's callbacks; ``None``: it sends none.
    callbacks: CallbackRules | None = None
    #: The texts that people write to its senders; ``None``: it passes none on.
    inbound: InboundRules | None = None
    #: The provider's usual sender.
    sender: str | None = Field(None, min_length=1, max_length=64)
    #: A sender as messages name it → the sender at this provider.
    senders: dict[str, str] = Field({})
    #: SMS parts per second for each sender; 0: no limit.
    parts_per_s: Number = Field(0, ge=0)
    #: Permits addresses without TLS.
    allow_http: bool = False

    @property
    def takes_media(self) -> bool:
        """Whether its requests have a place for media."""
        return MEDIA_SLOT in slots_of(self.body or self.form)

    @property
    def names_callback(self) -> bool:
        """Whether each request contains the callback address."""
        return CALLBACK_SLOT in slots_of(self.body or self.form)

    @field_validator("sender")
    @classmethod
    def _can_send(cls, value: str | None) -> str | None:
        return None if value is None else senders.sender(value, ids=True)

    @field_validator("senders")
    @classmethod
    def _can_all_send(cls, value: dict[str, str]) -> dict[str, str]:
        return {senders.sender(name, ids=True): senders.sender(own, ids=True) for name, own in value.items()}

    @field_validator("body", "form")
    @classmethod
    def _can_be_sent(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "must be what JSON can say: texts, numbers, true, false, null, lists and objects"
            ) from None
        return value

    @field_validator("headers")
    @classmethod
    def _without_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z0-9-]{1,60}", name) or not (text.isascii() and text.isprintable()):
                raise ValueError(f"{name!r} is not a header of one line in ASCII")
            if _SECRET_HEADER.search(name) and not any(m[1] for m in MARK.finditer(text)):
                raise ValueError(f"{name} holds a secret: write ${{VARIABLE}} or ${{file:/path}} in its place")
            only(slots_of(text), ())
        named = {name.lower(): text for name, text in value.items()}
        if len(named) < len(value):
            raise ValueError("one header is there twice; capitals make no difference")
        return named

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.body) == bool(self.form):
            raise ValueError("give the body of a request, either as json or as form")
        slots = list(slots_of(self.body or self.form))
        only(slots, (*SLOTS, MEDIA_SLOT))
        if any(f"{{{MEDIA_SLOT}}}" in text != f"{{{MEDIA_SLOT}}}" for text in texts(self.body or self.form)):
            raise ValueError("{media} stands for a list: let it be the whole value of a field, or an item of a list")
        if not {"to", "to_digits"} & set(slots) or "text" not in slots:
            raise ValueError("the body must hold {to} (or {to_digits}) and {text}")
        if "sender" in slots and self.sender is None:
            raise ValueError("the body has a {sender}: say who sends with 'sender'")
        if self.idempotency and self.idempotency.header is None and "id" not in slots:
            raise ValueError("idempotency needs a header, or {id} in the body: by it a repeat is known")
        if CALLBACK_SLOT in slots and self.callbacks is None:
            raise ValueError("the body has a {callback_url}: say with 'callbacks' what comes there")
        if self.basic_auth and "authorization" in self.headers:
            raise ValueError("basic_auth is a header Authorization, and there is one already; leave one of them out")
        only(slots_of(self.url), ())
        for url in (self.url, self.list.url if self.list else self.url):
            _address(url, self.allow_http)
        holding = {"url", "headers", "basic_auth", "body", "form", "list", "callbacks", "inbound"}
        for name in secrets_of(self.model_dump(include=holding)):
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"${{{name}}} is neither ${{VARIABLE}} nor ${{file:/path}}")
        return self


class BuiltInShare(Strict):
    """The share of the provider that needs no file."""

    #: The provider's share of the messages, relative to the other weights.
    weight: Number = Field(100, ge=0, le=1_000_000)


class ProviderFile(Strict):
    """The whole file. The built-in provider stands in it under its own name."""

    #: The share of the built-in provider.
    built_in: BuiltInShare = BuiltInShare()
    #: The other providers.
    providers: tuple[ProviderSpec, ...] = Field(min_length=1, max_length=20)

    @property
    def built_in_weight(self) -> float:
        """The weight of the built-in provider."""
        return self.built_in.weight

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [p.name for p in self.providers]
        if len(set(names)) < len(names):
            raise ValueError("two providers have one name; messages remember their provider by it")
        return self


def read(path: str, *, built_in: str) -> ProviderFile:
    """Read the file, YAML or JSON.

    Args:
        path: the path of the file.
        built_in: the name of the built-in provider.

    Raises:
        ProviderFileError: the file cannot be read, or a field is wrong. Its text quotes no value, because a value may
            be a secret.
    """
    try:
        document = declared_yaml.read(path)
        return ProviderFile.model_validate(_with_built_in(document.value, built_in))
    except Unreadable as error:
        raise ProviderFileError(str(error)) from None
    except ProviderFileError as error:
        raise ProviderFileError(f"{path}: {error}") from None
    except ValidationError as error:
        raise ProviderFileError(mistakes.told(document, error, built_in)) from None


def _with_built_in(said: object, name: str) -> object:
    """Move the share of the built-in provider to its field, and refuse any other provider with its name."""
    if not isinstance(said, dict):
        return said
    providers = said.get("providers")
    for place, provider in enumerate(providers if isinstance(providers, list) else ()):
        if isinstance(provider, dict) and provider.get("name") == name:
            problem = f"is the built-in provider; its share is '{name}: {{weight: …}}' beside 'providers'"
            raise ProviderFileError(f"providers[{place}].name: {problem}")
    if "built_in" in said:
        raise ProviderFileError("built_in: is not a field here; docs/providers.md lists them")
    return {("built_in" if key == name else key): value for key, value in said.items()}


def _address(url: str, allow_http: bool) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not url.isascii() or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("url must be an address such as https://sms.example/v1/messages")
    if parts.scheme == "http" and host not in _LOOPBACK and not allow_http:
        raise ValueError("url is not https: numbers and secrets could be read on the way; or say 'allow_http: true'")
