"""What follows the push, in the application's words."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import When

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message that follows the step before it, usually the push, if ``when`` still holds ``after`` it.

    Args:
        text: what to text, at most 1,600 characters, with ``{{ name }}`` placeholders; ``None`` texts the push's body.
        when: the condition, as :class:`When`, its text, or Tencent's ``trigger_condition`` number 0, 1 or 2.
        after: how long the step before it gets, 0 to 30 days.
        sender: a number, Messaging Service or name of your Twilio account; ``None`` is the workers' setting.

    A first step that follows nothing goes at once: there ``when`` and ``after`` do not count.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    text: str | None = None
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)
    sender: str | None = None

    def __post_init__(self) -> None:
        _require_timedelta("sms.after", self.after)


@dataclass(frozen=True, slots=True)
class WhatsApp:
    """A WhatsApp message: a content template of Twilio's that WhatsApp has approved. In ``steps`` of a notification.

    Args:
        content_sid: the template, ``HX…``.
        variables: its variables, by name or number; their texts may have ``{{ name }}`` placeholders.
        when, after, sender: as for :class:`Sms`; ``not_clicked`` of the step behind it means that nobody read it.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    content_sid: str
    variables: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)
    sender: str | None = None

    def __post_init__(self) -> None:
        _require_timedelta("whatsapp.after", self.after)


def _require_timedelta(name: str, value: object) -> None:
    if not isinstance(value, timedelta):
        problem = f"must be a timedelta, like timedelta(minutes=5), not {type(value).__name__}"
        raise InvalidMessage(name, problem)
