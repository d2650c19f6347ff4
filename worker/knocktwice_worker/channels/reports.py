"""What comes back from providers without being asked: reports about messages, and texts that people wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.lifecycle import ProviderState

#: The code that stands for "the recipient has opted out" in rows, whatever the provider's own word for it is.
OPTED_OUT = 21610
#: A price as providers write it.
PRICE = re.compile(r"-?\d{1,6}(\.\d{1,8})?")
_INTENT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d{1,4})")


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A provider's word about a message that it took.

    Attributes:
        provider: the provider's name.
        provider_id: its id of the message, as rows keep it.
        status: what became of the message.
        at: when we heard of it, with a time zone.
        error: the provider's code as a number; :data:`OPTED_OUT` for a recipient who has opted out.
        intent: notification id and step, where the report names them by a signed address or by our own reference. It finds a
            message whose provider id nobody could record.
        price, price_unit: what it cost, as a decimal number and an ISO 4217 code.
        error_text: the provider's code where ``error`` does not tell it: a word, or a number that rows use for something else.
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


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A text that somebody wrote to one of our senders.

    Attributes:
        provider_id: the provider's id, by which a repeat is known.
        number: who wrote, in E.164.
        text: what they wrote.
        opt_out: the provider's own reading of it (``STOP``, ``START``, ``HELP``), if it has one.
    """

    provider_id: str
    number: str
    text: str
    opt_out: str | None = None


class Books(Protocol):
    """A provider's list of what it has sent, which can be asked for reports that never came."""

    def sent_between(self, transport: Carrier, start: datetime, end: datetime) -> Iterator[list[StatusReport]]:
        """Read what is said of all messages sent in a span of time, page by page; it ends early without an answer.

        Args:
            start, end: aware; ``end`` is now, and stands in the reports.
        """
        ...

    def fetch(self, transport: Carrier, ids: Sequence[str], now: datetime) -> list[StatusReport]:
        """Ask what became of single messages; those that the provider does not answer for are left out."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request that came to an address of ours.

    Attributes:
        provider: the name in the address, where it has one.
        query: after the question mark, as it came.
        headers: by names in lower case.
        body: as it came.
        at: when, with a time zone.
    """

    provider: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """What a request said.

    Attributes:
        reports: about messages.
        texts: that people wrote.
        reply: what the provider wants to read as our answer; empty: nothing.
        media_type: of the reply.
    """

    reports: Sequence[StatusReport] = ()
    texts: Sequence[WrittenText] = ()
    reply: str = ""
    media_type: str = "text/plain"


class NotBelieved(KnocktwiceError):
    """Nothing shows that a request is the provider's.

    Args:
        problem: what is told to whoever sent it.
        unset: the settings without which no request can be believed; an operator has to mend that.
    """

    def __init__(self, problem: str, *, unset: str | None = None) -> None:
        super().__init__(problem)
        self.unset = unset


class Unreadable(ValueError):
    """A request that is believed and cannot be read; the message says what was expected."""


class Receiver(Protocol):
    """Reads the requests that a provider sends to one address."""

    def receive(self, arrived: Arrived) -> Heard:
        """Return what a request says.

        Raises:
            NotBelieved: nothing shows that it is the provider's.
            Unreadable: it is not what was agreed.
        """
        ...


def read_intent(intent: str) -> tuple[str, int] | None:
    """Return the notification id and the step that a message's name in a provider's books says."""
    found = _INTENT.fullmatch(intent)
    return (found[1], int(found[2])) if found else None
