"""What every channel is: a message becomes an HTTP request, a response becomes one of four outcomes.

A channel sends nothing itself. :class:`~knocktwice_worker.channels.outbound.transport.Transport` carries the requests of a whole batch in
flight together, so a channel is two pure functions and is tested as such. Provider exceptions and error codes never
leave the channel's module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Wait before asking again for credentials that could not be had.
_NO_CREDENTIALS_PAUSE = timedelta(seconds=30)

_BACKOFF, _BACKOFF_CAP = timedelta(seconds=2), timedelta(minutes=5)


class CredentialsUnavailable(KnocktwiceError):
    """A provider's credentials are missing or refused: mend the named setting. Nothing was sent; it is tried again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, ready to go. ``body`` is bytes already encoded as ``headers["content-type"]`` says.

    Attributes:
        repeatable: receiving it twice does no harm, so it may be sent again on another connection.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = "POST"
    repeatable: bool = False


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
    """The provider did **not** take it: safe to send again after ``after``.

    Attributes:
        too_fast: because it gets more than it wants.
    """

    reason: str
    after: timedelta | None = None
    too_fast: bool = False


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
    """Nobody can tell whether it went out (time-out, 5xx). A push, which replaces itself, is sent again ``after``."""

    reason: str
    after: timedelta | None = None


Outcome = Sent | Retry | Rejected | Unknown

MessageT = TypeVar("MessageT", contravariant=True)


class Channel(Protocol[MessageT]):
    """The seam between the pipeline and a provider."""

    #: ``push`` or ``sms``.
    name: str

    def authorize(self) -> None:
        """Make sure that credentials are at hand; costs nothing while they are fresh.

        Raises:
            CredentialsUnavailable: there are none, or they cannot be had now.
        """
        ...

    def request(self, message: MessageT) -> Request:
        """Encode one message. Raises nothing for content the contract lets through."""
        ...

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read the provider's answer."""
        ...


class Carrier(Protocol):
    """What carries requests; :class:`~knocktwice_worker.channels.outbound.transport.Transport` is one."""

    def send(self, requests: Sequence[Request]) -> list[Response | NoResponse]:
        """Send side by side; answers in the same order."""
        ...


def deliver(transport: Carrier, channel: Channel[MessageT], messages: Sequence[MessageT]) -> list[Outcome]:
    """Send messages through a channel, all in flight together, and return each one's outcome in the same order."""
    if not messages:
        return []
    try:
        channel.authorize()
    except CredentialsUnavailable as error:
        return [Retry(str(error), _NO_CREDENTIALS_PAUSE)] * len(messages)
    return [channel.outcome(answer) for answer in transport.send([channel.request(m) for m in messages])]


def patience(outcomes: Sequence[Outcome]) -> Retry | None:
    """Return the longest wait asked for by a provider that gets more than it wants, or ``None`` if it keeps up."""
    asked = [o for o in outcomes if isinstance(o, Retry) and o.too_fast]
    return max(asked, key=lambda o: o.after or timedelta(), default=None)


def backoff(tries: int) -> timedelta:
    """Return how long to wait before another try when the provider names no time; doubled with each try up to a cap."""
    return min(_BACKOFF * 2.0 ** min(tries, 10), _BACKOFF_CAP)


def retry_after(answer: Response) -> timedelta | None:
    """Return the wait that an answer asks for, in seconds or as a date (RFC 9110, 10.2.3)."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:9]), 86_400))
    try:
        wait = parsedate_to_datetime(value) - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta()), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class PushMessage:
    """One push to one device.

    Attributes:
        notification_id: UUID as text; becomes tag and collapse id, so that a repeat replaces itself.
        registration: FCM registration token or FID.
        title, body: rendered texts.
        data: extra key-value pairs for the application.
        ttl: how long the provider may hold it for a device that is away.
        receipt_url: where the app reports, see ``content/links/receipt_urls.py``.
    """

    notification_id: str
    registration: str
    title: str
    body: str
    ttl: timedelta
    data: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    image: str | None = None
    receipt_url: str | None = None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A silent push to one device: take that notification off the screen.

    Attributes:
        notification_id, registration: as of the push that it withdraws.
        ttl: how long the provider may hold it for a device that is away.
    """

    notification_id: str
    registration: str
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class SmsMessage:
    """One SMS, or one WhatsApp message.

    Attributes:
        intent: opaque text that names the delivery in the status-callback URL.
        to: E.164.
        text: rendered; of a WhatsApp message, its content template with the variables (``plans.template_of``).
        sender: a number, a name or a service of the provider's; ``None`` takes the channel's own.
    """

    intent: str
    to: str
    text: str
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class ListedMessage:
    """A message in a provider's own books. ``date_created`` is to the second.

    Attributes:
        sender: the number or name it comes from, which a service chooses late.
        service: Twilio's Messaging Service.
        reference: our own name of it, where the provider keeps that.
    """

    sid: str
    to: str
    body: str
    status: str
    date_created: datetime
    sender: str | None = None
    service: str | None = None
    reference: str | None = None


class Messaging(Channel[SmsMessage], Protocol):
    """A channel of the later steps, by one provider, which can perhaps say what became of a message."""

    #: Its name in rows and ledgers.
    provider: str
    #: Whether it can be asked what it has sent.
    listable: bool
    #: For how long it knows a repeat of a message, so that a repeat does no harm; ``None``: it does not.
    repeats_within: timedelta | None

    def list_messages(self, transport: Carrier, since: Mapping[str, datetime]) -> dict[str, list[ListedMessage]]:
        """Ask for the messages to some numbers.

        Args:
            since: for each number, how far back to read (aware).

        Returns:
            For each number that the provider answered for, its messages created since then.
        """
        ...

    def is_message(self, listed: ListedMessage, message: SmsMessage) -> bool:
        """Whether a listed message may be the one that we sent."""
        ...
