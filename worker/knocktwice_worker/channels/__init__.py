"""What every channel is: a message becomes an HTTP request, a response becomes one of four outcomes.

A channel does no I/O of its own. :class:`~knocktwice_worker.transport.Transport` carries the requests of a whole batch in
flight together, so a channel is two pure functions and is tested as such. Provider exceptions and error codes never
leave the channel's module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, ready to go. ``body`` is bytes already encoded as ``headers["content-type"]`` says."""

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. Header names are lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoResponse:
    """The request ended without an answer.

    Attributes:
        reason: what happened, without personal data.
        sent: whether the provider may have received it. ``False`` only when the connection was never made.
    """

    reason: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took the message and calls it ``provider_id``."""

    provider_id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The provider did **not** take it and asks for patience: safe to send again after ``after``."""

    reason: str
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It will never go out like this.

    Attributes:
        reason: a word from the field (``unregistered``, ``opted_out``, ``invalid_number``, …), fit for the ledger.
        detail: the provider's code and text, without personal data.
        address_dead: the address itself is gone for good and should be forgotten.
    """

    reason: str
    detail: str = ""
    address_dead: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell whether it went out (time-out, 5xx). Channels whose messages replace themselves may resend."""

    reason: str


Outcome = Sent | Retry | Rejected | Unknown

MessageT = TypeVar("MessageT", contravariant=True)


class Channel(Protocol[MessageT]):
    """The seam between the pipeline and a provider."""

    #: ``push`` or ``sms``.
    name: str

    def request(self, message: MessageT) -> Request:
        """Encode one message. Raises nothing for content the contract lets through."""
        ...

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read the provider's answer."""
        ...


@dataclass(frozen=True, slots=True)
class PushMessage:
    """One push to one device.

    Attributes:
        notification_id: UUID as text; becomes tag and collapse id, so that a repeat replaces itself.
        registration: FCM registration token or FID.
        title, body: rendered texts.
        data: extra key-value pairs for the application.
        ttl: how long the provider may hold it for a device that is away.
    """

    notification_id: str
    registration: str
    title: str
    body: str
    ttl: timedelta
    data: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class SmsMessage:
    """One SMS.

    Attributes:
        intent: opaque text that names the delivery in the status-callback URL.
        to: E.164.
        text: rendered.
    """

    intent: str
    to: str
    text: str
