"""The later steps as a template declares them: one SMS, or a list of steps with their own texts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, model_validator

from knocktwice_shared.channels import CONTENTS, SMS, Kind
from knocktwice_shared.channels.step_content import TEXT
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import AFTER_LIMIT, SMS_CHARS_LIMIT, TENCENT_CONDITIONS, Step, When, parse_step
from knocktwice_worker.content import locales
from knocktwice_worker.content.liquid import BrokenTemplate, variables
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Self


def _after(value: object) -> timedelta | None:
    return None if value is None else durations.parse(value, AFTER_LIMIT)


def _written(span: timedelta | None) -> str | None:
    return None if span is None else durations.written(span)


def _when(value: object) -> object:
    return TENCENT_CONDITIONS[value] if type(value) is int and 0 <= value < len(TENCENT_CONDITIONS) else value


def _canonical(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {locales.canonical(str(tag)): text for tag, text in value.items()}


#: One text for everybody, or one for each locale.
Localised = Annotated[str | dict[str, str] | None, AfterValidator(_canonical)]


class Fallback(BaseModel):
    """A step that follows ``after`` the one before it, ``when`` its condition still holds.

    Beside the fields here it has those that its channel asks for (:attr:`content`).

    Attributes:
        channel: a word of the contract's.
        when: the condition, or Tencent's number of it; ``None`` only for a first step without a push before it.
        after: how long the step before it gets; ``None`` likewise.
        text: its own, where its channel has texts; left out, the content's.
        sender: another than the setting's.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    channel: str = SMS
    when: Annotated[When | None, BeforeValidator(_when)] = None
    after: Annotated[timedelta | None, BeforeValidator(_after), PlainSerializer(_written)] = None
    text: Localised = None
    sender: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        fields = {name: field for content in CONTENTS.values() for name, field in content.fields.items()}
        for name in value:
            if name not in cls.model_fields and name not in fields:
                raise InvalidMessage(str(name), "is not a field of a template")
        return {
            name: _canonical(v) if name != TEXT and name in fields and fields[name].localised else v
            for name, v in value.items()
        }

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        for locale in self._locales() or ("",):
            fields: dict[str, Any] = {
                "channel": self.channel,
                "when": str(self.when or When.NOT_DELIVERED),
                "after_s": (self.after or timedelta()).total_seconds(),
                "sender": self.sender,
                **{name: _own(v, locale) if self._by_locale(name, v) else v for name, v in self._said()},
            }
            try:
                parse_step(fields, "step", first=True, alone=False)
            except InvalidMessage as error:
                raise InvalidMessage(error.field.removeprefix("step."), error.problem) from None
        return self

    @property
    def content(self) -> dict[str, Any]:
        """The channel's own fields, beside the text."""
        return {name: v for name, v in (self.model_extra or {}).items() if v is not None}

    def missing(self, contents: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield field and locale for which it has no words, of the locales that a template has contents for."""
        for field, value in self._said():
            if self._by_locale(field, value):
                yield from ((field, locale) for locale in contents if locale not in value)

    def names(self, to_liquid: Callable[[str], str]) -> Iterator[str]:
        """Yield the names of its parameters.

        Raises:
            InvalidMessage: a text is broken.
        """
        for field, text in self._texts():
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
        content = {name: self._as_liquid(name, value, to_liquid) for name, value in self.content.items()}
        return Step(self.channel, self.when, self.after or timedelta(), text, self.sender, content)

    def too_long(self, signature: str | None) -> bool:
        """Whether a text of its own is too long with the signature before it."""
        texts = self.text.values() if isinstance(self.text, dict) else [self.text or ""]
        return any(len(text) + len(signature or "") + 1 > SMS_CHARS_LIMIT for text in texts)

    def _said(self) -> Iterator[tuple[str, Any]]:
        if self.text is not None:
            yield TEXT, self.text
        yield from self.content.items()

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Yield the texts that may hold parameters, with the fields in which they stand."""
        for name, value in self._said():
            field = CONTENTS[self.channel].fields[name]
            if not field.filled:
                continue
            if field.kind is Kind.TEXTS:
                yield from ((f"{name}.{key}", text) for key, text in value.items())
                continue
            for said in value.values() if isinstance(value, dict) else [value]:
                yield from ((name, text) for text in ([said] if isinstance(said, str) else said))

    def _as_liquid(self, name: str, value: Any, to_liquid: Callable[[str], str]) -> Any:
        field = CONTENTS[self.channel].fields[name]
        if not field.filled:
            return value
        if isinstance(value, dict):
            return {key: self._as_liquid(name, said, to_liquid) for key, said in value.items()}
        if field.kind is Kind.ADDRESSES:
            return [to_liquid(text) for text in ([value] if isinstance(value, str) else value)]
        return to_liquid(value)

    def _by_locale(self, name: str, value: object) -> bool:
        content = CONTENTS.get(self.channel)
        field = content.fields.get(name) if content else None
        return isinstance(value, dict) and (name == TEXT or (field is not None and field.localised))

    def _locales(self) -> set[str]:
        return {tag for name, value in self._said() if self._by_locale(name, value) for tag in value}


def _own(value: Any, locale: str) -> Any:
    """Return what a locale has; another one stands in where it has nothing, which is complained about elsewhere."""
    return value.get(locale) or next(iter(value.values()), None) if isinstance(value, dict) else value
