"""The interface between the pipeline and a provider: two pure functions, and more for a later step's provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from knocktwice_worker.channels.http import NoResponse
from knocktwice_worker.channels.messages import ListedMessage, StepMessage
from knocktwice_worker.channels.outcomes import CredentialsUnavailable, Outcome, Retry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.http import Carrier, Request, Response
    from knocktwice_worker.channels.reports import Books

#: The wait before another try if there are no credentials.
_NO_CREDENTIALS_PAUSE = timedelta(seconds=30)

#: The outcome of a message that could not leave before its deadline.
_TOO_LATE = Retry("the sender stood still", timedelta(), ours=True)

MessageT = TypeVar("MessageT", contravariant=True)


class Provider(Protocol[MessageT]):
    """The interface between the pipeline and a provider."""

    #: The channel's name.
    name: str

    def authorize(self) -> None:
        """Make sure that there are credentials. Costs nothing while they are fresh.

        Raises:
            CredentialsUnavailable: there are no credentials, or they cannot be fetched now.
        """
        ...

    def request(self, message: MessageT) -> Request:
        """Encode one message. Raises nothing for content that the contract allows."""
        ...

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read the provider's answer."""
        ...


def deliver(
    transport: Carrier, channel: Provider[MessageT], messages: Sequence[MessageT], not_after: Deadline | None = None
) -> list[Outcome]:
    """Send messages through a channel, side by side, and return their outcomes in the same order.

    Args:
        not_after: messages that could not leave before this deadline are not sent, and may be tried again at once.
    """
    if not messages:
        return []
    try:
        channel.authorize()
    except CredentialsUnavailable as error:
        return [Retry(str(error), _NO_CREDENTIALS_PAUSE, operators=error.operators)] * len(messages)
    answers = transport.send([channel.request(m) for m in messages], not_after)
    return [_TOO_LATE if isinstance(a, NoResponse) and a.late else channel.outcome(a) for a in answers]


@dataclass(frozen=True, slots=True)
class Rate:
    """The greatest speed that a provider accepts.

    Attributes:
        name: the name of the token bucket; rates with the same name share one.
        per_s: parts or messages per second; 0: no limit.
    """

    name: str
    per_s: float


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of an examination of our account with a provider, and of the sender.

    Attributes:
        works: no finding prevents messages from being sent.
        finding: the findings, in words for a person; no credential is quoted.
    """

    works: bool
    finding: str


class StepProvider(Provider[StepMessage], Protocol):
    """One provider of a channel of later steps. Some providers can also tell what became of a message."""

    #: The provider's name in rows and ledgers.
    provider: str
    #: The provider can list the messages that it has sent.
    listable: bool
    #: The provider's list of sent messages, to fetch missing reports from; ``None``: it has none.
    books: Books | None
    #: The time within which the provider recognises a repeat, so that a repeat does no harm; ``None``: it does not.
    repeats_within: timedelta | None

    def list_messages(self, transport: Carrier, since: Mapping[str, datetime]) -> dict[str, list[ListedMessage]]:
        """Ask the provider for the messages to some numbers.

        Args:
            since: for each number, the moment from which to read (aware).

        Returns:
            For each number that the provider answered for, the messages created since then.
        """
        ...

    def carries(self, text: str) -> bool:
        """Whether the provider can send a message: one with media needs a provider that takes media.

        Args:
            text: as the channel's wording wrote it.
        """
        ...

    def sender_of(self, sender: str | None) -> str | None:
        """Return the sender from which a message goes whose row names ``sender``; ``None``: it is not known."""
        ...

    def authorize_callbacks(self) -> None:
        """Make sure that the provider's requests to us can be verified.

        Raises:
            CredentialsUnavailable: a setting that the verification needs is missing.
        """
        ...

    def examine(self) -> Examination:
        """Find out whether the provider would accept messages now, for a person who asks. It may take seconds.

        Raises:
            CredentialsUnavailable: a setting is missing.
        """
        ...

    def pace(self, sender: str | None) -> Rate:
        """Return the greatest speed for a sender; ``None``: the provider's own."""
        ...

    def is_message(self, listed: ListedMessage, message: StepMessage) -> bool:
        """Whether a listed message may be the message that we sent."""
        ...
