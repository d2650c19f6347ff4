"""The steps after the push, in the application's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knocktwice_shared import channels
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import When

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import Text


class LaterStep:
    """A step that follows the one before it: an :class:`Sms`, or a message over another channel.

    Attributes:
        when: the condition, as :class:`When`, its text, or Tencent's ``trigger_condition`` number 0, 1 or 2.
        after: how long the step before it gets, 0 to 30 days.
        sender: who sends it; ``None`` is the workers' setting.
    """

    __slots__ = ()

    when: When | str | int
    after: timedelta
    sender: str | None

    @property
    def channel(self) -> str:
        """The channel's name in a message."""
        raise NotImplementedError

    @property
    def said(self) -> Mapping[str, Any]:
        """The step's content, in the fields of a message."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Sms(LaterStep):
    """A text message that follows the step before it, usually the push, if ``when`` still holds ``after`` it.

    Args:
        text: what to text, at most 1,600 characters, with ``{{ name }}`` placeholders, or texts by language, like
            ``{"en": "It is here.", "de": "Es ist da."}``; ``None`` texts the push's body.
        when: the condition, as :class:`When`, its text, or Tencent's ``trigger_condition`` number 0, 1 or 2.
        after: how long the step before it gets, 0 to 30 days.
        sender: a number, name or service of your provider's account; ``None`` is the workers' setting.
        media: ``https`` addresses of pictures or other files that go with the text, one or up to ten, or as many for
            each language; their parts may be ``{{ name }}`` placeholders. The provider fetches them.

    A first step that follows nothing goes at once: there ``when`` and ``after`` do not count.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    text: Text | None = None
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)
    sender: str | None = None
    media: str | Sequence[str] | Mapping[str, str | Sequence[str]] = ()

    def __post_init__(self) -> None:
        require_timedelta("sms.after", self.after)

    @property
    def channel(self) -> str:
        """SMS."""
        return channels.SMS

    @property
    def said(self) -> Mapping[str, Any]:
        """Its text, if it has one of its own, and its media."""
        said: dict[str, Any] = {} if self.text is None else {"text": self.text}
        return {**said, channels.MEDIA: _listed(self.media)} if self.media else said


@dataclass(frozen=True, slots=True)
class ChannelStep(LaterStep):
    """A message over a channel that has no class of its own here, but that the workers know.

    Args:
        channel: the channel's name.
        content: what it says, in the fields that its channel asks for.
        when, after, sender: as for :class:`Sms`.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    channel: str
    content: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)
    sender: str | None = None

    def __post_init__(self) -> None:
        require_timedelta("after", self.after)

    @property
    def said(self) -> Mapping[str, Any]:
        """Its content as it is."""
        return self.content


def _listed(media: object) -> object:
    """Return addresses as JSON can say them; what they are is checked when the message is sent."""
    if isinstance(media, Mapping):
        return {tag: _listed(own) for tag, own in media.items()}
    return list(media) if isinstance(media, tuple | set | frozenset) else media


def require_timedelta(name: str, value: object) -> None:
    """Raise :class:`InvalidMessage` about ``name`` unless it is a timedelta."""
    if not isinstance(value, timedelta):
        problem = f"must be a timedelta, like timedelta(minutes=5), not {type(value).__name__}"
        raise InvalidMessage(name, problem)
