"""The seam between the pipeline and a provider: two pure functions, and what a provider of later steps can do beside."""

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

#: Wait before asking again for credentials that could not be had.
_NO_CREDENTIALS_PAUSE = timedelta(seconds=30)

#: What became of a message that could not leave by its deadline.
_TOO_LATE = Retry("the sender stood still", timedelta(), ours=True)

MessageT = TypeVar("MessageT", contravariant=True)


class Provider(Protocol[MessageT]):
    """The seam between the pipeline and a provider."""

    #: The channel's name.
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


def deliver(
    transport: Carrier, channel: Provider[MessageT], messages: Sequence[MessageT], not_after: Deadline | None = None
) -> list[Outcome]:
    """Send messages through a channel, all in flight together, and return each one's outcome in the same order.

    Args:
        not_after: messages that could not leave by then are not sent, and may be tried again at once.
    """
    if not messages:
        return []
    try:
        channel.authorize()
    except CredentialsUnavailable as error:
        return [Retry(str(error), _NO_CREDENTIALS_PAUSE)] * len(messages)
    answers = transport.send([channel.request(m) for m in messages], not_after)
    return [_TOO_LATE if isinstance(a, NoResponse) and a.late else channel.outcome(a) for a in answers]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a provider wants it.

    Attributes:
        name: whose bucket it is; who has the same name shares one.
        per_s: parts or messages per second; 0: as fast as it goes.
    """

    name: str
    per_s: float


@dataclass(frozen=True, slots=True)
class Examination:
    """What a provider says of our account with it, and of the sender.

    Attributes:
        works: nothing that was found keeps messages from being sent.
        finding: what was found, in words for a person; it quotes no credential.
    """

    works: bool
    finding: str


class StepProvider(Provider[StepMessage], Protocol):
    """A channel of the later steps, by one provider, which can perhaps say what became of a message."""

    #: Its name in rows and ledgers.
    provider: str
    #: Whether it can be asked what it has sent.
    listable: bool
    #: Its list of what it has sent; ``None``: it has none to ask for reports.
    books: Books | None
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

    def authorize_callbacks(self) -> None:
        """Make sure that what it sends to us can be believed.

        Raises:
            CredentialsUnavailable: something is missing for that.
        """
        ...

    def examine(self) -> Examination:
        """Find out whether it would take messages now, for a person who asks: it may take seconds.

        Raises:
            CredentialsUnavailable: a setting is missing.
        """
        ...

    def pace(self, sender: str | None) -> Rate:
        """Return how fast it may be asked to send from a sender; ``None`` is its own."""
        ...

    def is_message(self, listed: ListedMessage, message: StepMessage) -> bool:
        """Whether a listed message may be the one that we sent."""
        ...
