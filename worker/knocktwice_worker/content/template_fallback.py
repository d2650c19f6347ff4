"""What follows the push, as a template declares it: one SMS, or a list of steps with their own words."""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import (
    AFTER_LIMIT,
    SMS_CHARS_LIMIT,
    TENCENT_CONDITIONS,
    Channel,
    Step,
    When,
    parse_step,
)
from knocktwice_worker.content import locales
from knocktwice_worker.content.liquid import BrokenTemplate, variables
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Self


def _after(value: object) -> timedelta:
    return durations.parse(value, AFTER_LIMIT)


def _when(value: object) -> object:
    return TENCENT_CONDITIONS[value] if type(value) is int and 0 <= value < len(TENCENT_CONDITIONS) else value


def _canonical(value: str | dict[str, str] | None) -> str | dict[str, str] | None:
    if not isinstance(value, dict):
        return value
    return {locales.canonical(tag): text for tag, text in value.items()}


#: One text for everybody, or one for each locale.
Localised = Annotated[str | dict[str, str] | None, AfterValidator(_canonical)]


class Fallback(BaseModel):
    """A step that follows ``after`` the one before it, ``when`` its condition still holds.

    Attributes:
        text: an SMS's own; left out, the content's.
        sender: another than the setting's.
        content_sid, variables: of a WhatsApp message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Channel = Channel.SMS
    when: Annotated[When, BeforeValidator(_when)]
    after: Annotated[timedelta, BeforeValidator(_after), PlainSerializer(durations.written)]
    text: Localised = None
    sender: str | None = None
    content_sid: Localised = None
    variables: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        for locale in self._locales() or ("",):
            fields: dict[str, Any] = {
                "channel": str(self.channel),
                "when": str(self.when),
                "after_s": self.after.total_seconds(),
                "text": _own(self.text, locale),
                "sender": self.sender,
                "content_sid": _own(self.content_sid, locale),
                "variables": self.variables or None,
            }
            try:
                parse_step(fields, "step", first=True, alone=False)
            except InvalidMessage as error:
                raise InvalidMessage(error.field.removeprefix("step."), error.problem) from None
        return self

    def missing(self, contents: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield field and locale for which it has no words, of the locales that a template has contents for."""
        for field, value in (("text", self.text), ("content_sid", self.content_sid)):
            if isinstance(value, dict):
                yield from ((field, locale) for locale in contents if locale not in value)

    def names(self, to_liquid: Callable[[str], str]) -> Iterator[str]:
        """Yield the names of its parameters.

        Raises:
            InvalidMessage: a text is broken.
        """
        texts = self.text.values() if isinstance(self.text, dict) else [self.text] if self.text else []
        for field, text in [*(("text", t) for t in texts), *((f"variables.{n}", t) for n, t in self.variables.items())]:
            try:
                yield from variables(to_liquid(text))
            except BrokenTemplate as error:
                raise InvalidMessage(field, str(error)) from None

    def step(self, to_liquid: Callable[[str], str], signature: str | None) -> Step:
        """Return it as a batch carries it."""

        def said(text: str) -> str:
            return f"{signature} {to_liquid(text)}" if signature else to_liquid(text)

        text = (
            {k: said(v) for k, v in self.text.items()} if isinstance(self.text, dict) else self.text and said(self.text)
        )
        words = {name: to_liquid(value) for name, value in self.variables.items()}
        return Step(self.channel, self.when, self.after, text, self.sender, self.content_sid, words)

    def too_long(self, signature: str | None) -> bool:
        """Whether a text of its own is too long with the signature before it."""
        texts = self.text.values() if isinstance(self.text, dict) else [self.text or ""]
        return any(len(text) + len(signature or "") + 1 > SMS_CHARS_LIMIT for text in texts)

    def _locales(self) -> set[str]:
        return {tag for value in (self.text, self.content_sid) if isinstance(value, dict) for tag in value}


def _own(value: str | dict[str, str] | None, locale: str) -> str | None:
    """Return what a locale has; another one stands in where it has nothing, which is complained about elsewhere."""
    return value.get(locale) or next(iter(value.values()), None) if isinstance(value, dict) else value
