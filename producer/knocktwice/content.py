"""The second knock, in the application's words."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import When


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message that follows the push if ``when`` still holds ``after`` it.

    Args:
        text: what to text, at most 1,600 characters, with ``{{ name }}`` placeholders; ``None`` texts the push's body.
        when: the condition, as :class:`When`, its text, or Tencent's ``trigger_condition`` number 0, 1 or 2.
        after: how long the push gets, 0 to 30 days.

    Raises:
        InvalidMessage: ``after`` is not a timedelta. Everything else is checked when the message is sent.
    """

    text: str | None = None
    _: KW_ONLY
    when: When | str | int = When.NOT_DELIVERED
    after: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if not isinstance(self.after, timedelta):
            problem = f"must be a timedelta, like timedelta(minutes=5), not {type(self.after).__name__}"
            raise InvalidMessage("sms.after", problem)
