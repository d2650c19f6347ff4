"""The requests that providers send to us: reports about messages, and texts that people wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.lifecycle import ProviderState, Untextable

#: The error code for "the recipient has opted out" in rows, whatever code the provider uses.
OPTED_OUT = 21610
#: The form of a price in providers' answers.
PRICE = re.compile(r"-?\d{1,6}(\.\d{1,8})?")
_INTENT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d{1,4})(?:\.\d{1,2})?")


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A provider's report about a message that it accepted.

    Attributes:
        provider: the provider's name.
        provider_id: the provider's id of the message, as rows keep it.
        status: the state of the message.
        at: the moment at which we got the report, with a time zone.
        error: the provider's code as a number; :data:`OPTED_OUT` for a recipient who has opted out.
        intent: notification id and step, if a signed address or our own reference in the report names them. With them a
            message is found whose provider id could not be recorded.
        price, price_unit: the cost, as a decimal number and an ISO 4217 code.
        error_text: the provider's code if ``error`` cannot express it: a word, or a number that rows use for something
            else.
        untextable: why the number cannot be texted, if the code says so.
        operators: what the operator must mend, if the code says so; it says nothing of the recipient. The message went
            to nobody, so it may be sent again.
    """

    provider: str
    provider_id: str
    status: ProviderState
    at: datetime
    error: int | None = None
    intent: tuple[str, int] | None = None
    price: str | None = None
    price_unit: str | None = None
    error_text: str | None = None
    untextable: Untextable | None = None
    operators: str | None = None


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A text that a person wrote to one of our senders.

    Attributes:
        provider_id: the provider's id, by which a repeat is recognised.
        number: the writer's number in E.164, or what else the provider tells: a short code, a name.
        text: the text.
        opt_out: the provider's own reading of the text (``STOP``, ``START``, ``HELP``), if it has one.
        provider: the provider's name.
        channel: the channel by which it came.
        sender: our sender to which it was written.
    """

    provider_id: str
    number: str
    text: str
    opt_out: str | None = None
    provider: str | None = None
    channel: str | None = None
    sender: str | None = None


class Books(Protocol):
    """A provider's list of sent messages, from which reports can be fetched that never came."""

    def sent_between(self, transport: Carrier, start: datetime, end: datetime) -> Iterator[list[StatusReport]]:
        """Read the reports of all messages sent in a span of time, page by page.

        Stops early if the provider does not answer.

        Args:
            start, end: aware; ``end`` is now, and is the time of the reports.
        """
        ...

    def fetch(self, transport: Carrier, ids: Sequence[str], now: datetime) -> list[StatusReport]:
        """Fetch the reports of single messages. Messages that the provider does not answer for are left out."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request that came to one of our addresses.

    Attributes:
        provider: the provider's name in the address, if it has one.
        query: the text after the question mark, unchanged.
        headers: the headers, by names in lower case.
        body: the body, unchanged.
        at: the moment at which it came, with a time zone.
    """

    provider: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """The content of a request.

    Attributes:
        reports: the reports about messages.
        texts: the texts that people wrote.
        reply: our answer, as the provider expects it; empty: no content.
        media_type: the media type of the reply.
    """

    reports: Sequence[StatusReport] = ()
    texts: Sequence[WrittenText] = ()
    reply: str = ""
    media_type: str = "text/plain"


class NotBelieved(KnocktwiceError):
    """No proof shows that a request comes from the provider.

    Args:
        problem: the answer to the sender of the request.
        unset: the settings without which no request can be verified; an operator has to set them.
    """

    def __init__(self, problem: str, *, unset: str | None = None) -> None:
        super().__init__(problem)
        self.unset = unset


class Unreadable(ValueError):
    """A verified request that cannot be read. The message says what was expected."""


class Receiver(Protocol):
    """Reads the requests that a provider sends to one address."""

    def receive(self, arrived: Arrived) -> Heard:
        """Return the content of a request.

        Raises:
            NotBelieved: no proof shows that the request comes from the provider.
            Unreadable: the request has another form than agreed.
        """
        ...


def write_intent(notification_id: str, step: int, lost: int) -> str:
    """Return our name of a message, by which its provider also recognises a repeat.

    Args:
        lost: how many messages of this step the provider had taken and then failed. The next one is no repeat of them.
    """
    return f"{notification_id}.{step}.{lost}" if lost else f"{notification_id}.{step}"


def read_intent(intent: str) -> tuple[str, int] | None:
    """Return the notification id and the step that our name of a message contains."""
    found = _INTENT.fullmatch(intent)
    return (found[1], int(found[2])) if found else None
