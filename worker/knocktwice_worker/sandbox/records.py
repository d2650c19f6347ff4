"""The records of the sandbox: pushes, texts, callbacks, replies and webhooks as it remembers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class AppReport:
    """The result of a receipt that was sent to the address in its push.

    Attributes:
        kind: ``delivered`` or ``clicked``.
        answered: the gateway's HTTP status the last time; ``None``: no answer.
        tries: how often it was tried.
    """

    kind: str
    answered: int | None
    tries: int

    @property
    def taken(self) -> bool:
        """Whether the gateway has it."""
        return self.answered is not None and 200 <= self.answered < 300


@dataclass(frozen=True, slots=True)
class ReceivedPush:
    """A push that FCM took.

    Attributes:
        name: FCM's name for it.
        notification_id: ``knocktwice_id`` of its data, if there is one.
        message: the whole message, as it came.
        tag: what it replaces on the phone's screen.
        shown_at: when the phone got it and put it on its screen; ``None``: the phone is offline or shows no pushes.
        delivered_at, clicked_at: when that happened on the phone.
        withdrawn_at: when a silent push took it off the screen.
        dismissed_at: when the owner swiped it away.
        reports: what its app has reported to the push's receipt address, if it has one; the latest of each kind.
    """

    name: str
    registration: str
    notification_id: str | None
    title: str | None
    body: str | None
    data: Mapping[str, str]
    message: Mapping[str, Any]
    tag: str
    at: datetime
    shown_at: datetime | None = None
    delivered_at: datetime | None = None
    clicked_at: datetime | None = None
    withdrawn_at: datetime | None = None
    dismissed_at: datetime | None = None
    reports: tuple[AppReport, ...] = ()


@dataclass(frozen=True, slots=True)
class SentText:
    """An SMS or WhatsApp message that exists at Twilio.

    Attributes:
        to: ``whatsapp:`` before the number says which.
        body: of a content template, its id and what fills it in.
        statuses: those it had, in the order of their callbacks.
        validity_s: for how many seconds it may wait at Twilio; ``None``: nothing was said.
        media: the addresses of its media.
    """

    sid: str
    to: str
    body: str
    status: str
    created_at: datetime
    status_callback: str | None
    sender: str | None
    messaging_service: str | None
    sent_at: datetime | None = None
    updated_at: datetime | None = None
    error_code: int | None = None
    statuses: tuple[str, ...] = ()
    validity_s: int | None = None
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PostedCallback:
    """A status callback.

    Attributes:
        form: its fields.
        signature: ``X-Twilio-Signature``.
        answered: the receiver's HTTP status; ``None``: no answer, or not sent at all.
        sent: ``False`` for a receiver that is not on this machine.
    """

    url: str
    form: Mapping[str, str]
    signature: str
    answered: int | None
    sent: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A text that a phone's owner wrote back.

    Attributes:
        number: the owner's number.
        to: the sender that it answers; ``whatsapp:`` before it says which channel.
        answered: the gateway's HTTP status; ``None``: no answer.
    """

    number: str
    to: str
    body: str
    at: datetime
    answered: int | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that the sandbox got in the application's place.

    Attributes:
        id: ``webhook-id``, by which a repeat is known.
        event: what it tells of, such as ``notification.finished``.
        body: the JSON, as it came.
    """

    id: str
    event: str
    body: str
    at: datetime
