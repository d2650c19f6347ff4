"""The messages that providers get (a push, its withdrawal, a later step's message), and the messages that they list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Push
from knocktwice_shared.records import record

if TYPE_CHECKING:
    from datetime import datetime, timedelta


#: A push that has nothing but its texts.
_PLAIN = Push("", "")


@record
class PushMessage:
    """One push to one device.

    Attributes:
        notification_id: a UUID as text. It is used as tag and collapse id, so that a repeat replaces the first push.
        registration: the FCM registration token or FID of the device.
        title, body: the rendered texts.
        ttl: how long the provider may keep the push for a device that is offline.
        push: everything else about it. Its own title and body are not filled in, so that many people may share it.
        receipt_url: the address to which the app reports, see ``content/links/receipt_urls.py``.
        test: no provider gets it; see ``stand_in.py``.
    """

    notification_id: str
    registration: str
    title: str
    body: str
    ttl: timedelta
    push: Push = _PLAIN
    receipt_url: str | None = None
    test: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A silent push to one device that takes a notification off its screen.

    Attributes:
        notification_id, registration: those of the push that it withdraws.
        ttl: how long the provider may keep the push for a device that is offline.
    """

    notification_id: str
    registration: str
    ttl: timedelta


@record
class StepMessage:
    """One message of a later step.

    Attributes:
        intent: an opaque text that names the delivery in the status-callback URL.
        to: an address of the channel's kind; a number is in E.164.
        text: as the channel's wording wrote it.
        sender: a number, a name or a service of the provider's; ``None`` takes the channel's own.
        useful_for: for how long the provider may hold it; ``None``: as long as it likes.
    """

    intent: str
    to: str
    text: str
    sender: str | None = None
    useful_for: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ListedMessage:
    """A message in a provider's list of sent messages.

    Attributes:
        sid: the provider's id of the message.
        to: the recipient's number.
        body: the text.
        status: the provider's word for the message's state.
        date_created: the time of its creation, to the second.
        sender: the number or name that it comes from; a service chooses it late.
        service: the service that chooses the sender, if the provider has such services.
        reference: our own name of the message, if the provider keeps it.
    """

    sid: str
    to: str
    body: str
    status: str
    date_created: datetime
    sender: str | None = None
    service: str | None = None
    reference: str | None = None
