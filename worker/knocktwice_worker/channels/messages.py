"""What is handed to a provider: a push, its withdrawal, the message of a later step; and what providers list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


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
class StepMessage:
    """One message of a later step.

    Attributes:
        intent: opaque text that names the delivery in the status-callback URL.
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
    """A message in a provider's own books. ``date_created`` is to the second.

    Attributes:
        sender: the number or name it comes from, which a service chooses late.
        service: what chooses the sender, where the provider has such services.
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
