"""HTTP for the channels: a request as values, an answer as values, and the wait before another try."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from knocktwice_shared.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.channels.deadline import Deadline

_BACKOFF, _BACKOFF_CAP = timedelta(seconds=2), timedelta(minutes=5)


@record
class Request:
    """One HTTP request, ready to send.

    Attributes:
        url: the address, complete.
        headers: the headers by name.
        body: the bytes, already encoded as ``headers["content-type"]`` says.
        method: the HTTP method.
        repeatable: a repeat does no harm, so the request may be sent again on another connection.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = "POST"
    repeatable: bool = False


@record
class Response:
    """The provider's answer.

    Attributes:
        status: the HTTP status.
        body: the bytes of the body.
        headers: the headers, by names in lower case.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoResponse:
    """The request ended without an answer.

    Attributes:
        reason: what happened, without personal data.
        sent: the provider may have received the request. ``False`` only if no byte of the body has left us.
        late: the request was not sent, because its deadline had passed. The provider is not to blame.
    """

    reason: str
    sent: bool
    late: bool = False


class Carrier(Protocol):
    """Sends requests; :class:`~knocktwice_worker.channels.outbound.transport.Transport` is one."""

    def send(self, requests: Sequence[Request], not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Send requests side by side; return the answers in the same order. A request past its deadline is not sent."""
        ...


def backoff(tries: int) -> timedelta:
    """Return the wait before another try if the provider names none. It doubles with each try, up to a limit."""
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
