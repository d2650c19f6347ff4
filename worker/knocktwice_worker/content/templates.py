"""Templates: what a notification says in each language, why it is sent and what follows it, under one name.

A definition is checked as a whole when it is stored, so that nothing but a recipient's own values can be missing later.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from knocktwice_shared.channels import SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import (
    AT_ONCE,
    SMS_CHARS_LIMIT,
    STEPS_LIMIT,
    TEMPLATE_NAME_LIMIT,
    VALID_FOR_LIMIT,
    Category,
    Push,
    Step,
    When,
    one_text,
    senders,
)
from knocktwice_worker.content import locales
from knocktwice_worker.content.template_content import Content, Part, to_liquid
from knocktwice_worker.content.template_fallback import Fallback
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from typing import Self

#: So that a name can stand in a command line, a file and a log.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{TEMPLATE_NAME_LIMIT - 1}}}")


class InvalidDefinition(InvalidMessage):
    """A template cannot be stored: mend the named field."""


def _locale(value: str) -> str:
    return locales.canonical(value)


def _valid_for(value: object) -> timedelta:
    span = durations.parse(value, VALID_FOR_LIMIT)
    if span < timedelta(seconds=1):
        raise ValueError("must be at least 1s")
    return span


def _kind_of_fallback(value: object) -> str:
    return "fallback" if isinstance(value, dict | Fallback) else "steps" if isinstance(value, list) else "never"


class Definition(Part):
    """A template.

    Attributes:
        default_locale: whose contents people of another or an unknown language get; ``None`` refuses them.
        category: unless the sender names another.
        valid_for: how long after it was due a push or a message is of use, unless the sender says otherwise; ``None``
            is the category's setting.
        fallback: what follows the push, one SMS or a list of steps, unless the sender names another; ``never`` forbids
            all.
        signature: who sends the SMS, put before its text.
        sender: the number, name or Messaging Service that sends it, instead of the installation's own.
        contents: by canonical locale.
    """

    default_locale: Annotated[str, AfterValidator(_locale)] | None
    category: Category = Category.TRANSACTIONAL
    valid_for: Annotated[timedelta, BeforeValidator(_valid_for), PlainSerializer(durations.written)] | None = None
    fallback: (
        Annotated[
            Annotated[Fallback, Tag("fallback")]
            | Annotated[Annotated[list[Fallback], Field(min_length=1, max_length=STEPS_LIMIT)], Tag("steps")]
            | Annotated[Literal["never"], Tag("never")],
            Discriminator(_kind_of_fallback),
        ]
        | None
    ) = None
    signature: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    sender: str | None = None
    contents: Annotated[dict[str, Content], Field(min_length=1)]

    @field_validator("signature")
    @classmethod
    def _plain_signature(cls, value: str | None) -> str | None:
        if value is not None and ("{" in value or not value.strip() or "\0" in value):
            raise ValueError("must be plain text")
        return value

    @field_validator("sender")
    @classmethod
    def _can_send(cls, value: str | None) -> str | None:
        return None if value is None else senders.sender(value)

    @field_validator("contents", mode="before")
    @classmethod
    def _canonical_locales(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        spelt: dict[str, object] = {}
        wrong: list[InvalidMessage] = []
        for tag, content in value.items():
            try:
                locale = locales.canonical(str(tag))
            except ValueError as error:
                wrong.append(InvalidMessage(str(tag), str(error)))
                continue
            if locale in spelt:
                wrong.append(InvalidMessage(str(tag), f"is there twice; it is the same as {locale}"))
            spelt[locale] = content
        if wrong:
            raise InvalidMessage.of(wrong)
        return spelt

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.default_locale is not None and self.default_locale not in self.contents:
            raise InvalidMessage(
                "default_locale", f"has no contents ({self.default_locale}); there are {', '.join(self.contents)}"
            )
        for locale in self.contents:
            _, sms = self.content(locale)
            if sms is not None and len(sms) > SMS_CHARS_LIMIT and self._says_content(locale):
                raise InvalidMessage(
                    f"contents.{locale}.sms",
                    f"is {len(sms)} characters with its signature; {SMS_CHARS_LIMIT} at most",
                )
        if len({content.push is None for content in self.contents.values()}) > 1:
            lacking = next(locale for locale, content in self.contents.items() if content.push is None)
            raise InvalidMessage(f"contents.{lacking}.push", "is missing; other languages have one")
        for place, step in enumerate(self._steps):
            self._check_step(f"fallback.{place}" if isinstance(self.fallback, list) else "fallback", step, place)
        if not self.pushes:
            self._check_alone()
        return self

    @property
    def pushes(self) -> bool:
        """Whether it begins with a push. Otherwise its first step goes at once."""
        return any(content.push is not None for content in self.contents.values())

    def _check_alone(self) -> None:
        """Check what there is without a push."""
        if self.fallback == "never":
            raise InvalidMessage("fallback", "is never, and there is no push: nothing would be sent")
        silent = next((locale for locale, content in self.contents.items() if content.said[1] is None), None)
        if silent is not None and any(step.plain or (step.speaks and step.text is None) for step in self.plan):
            raise InvalidMessage(f"contents.{silent}.text", "is missing; there is nothing else that an SMS could say")

    def _check_step(self, path: str, step: Fallback, place: int) -> None:
        alone = place == 0 and not self.pushes
        for name, given in (("when", step.when), ("after", step.after)):
            if alone and given is not None:
                raise InvalidMessage(f"{path}.{name}", "must be left out: without a push the first step goes at once")
            if not alone and given is None:
                raise InvalidMessage(f"{path}.{name}", "is missing")
        if place and step.when is When.NOTIFICATIONS_DISABLED:
            problem = "is about the push, so only the step right after it can wait for it"
            raise InvalidMessage(f"{path}.when", problem)
        for field, locale in step.missing(self.contents):
            raise InvalidMessage(f"{path}.{field}", f"has nothing for {locale}")
        if step.too_long(self.signature):
            raise InvalidMessage(f"{path}.text", f"is too long with its signature; {SMS_CHARS_LIMIT} at most")
        try:
            set(step.names(to_liquid))
        except InvalidMessage as error:
            raise InvalidMessage(f"{path}.{error.field}", error.problem) from None

    @property
    def _steps(self) -> list[Fallback]:
        if isinstance(self.fallback, Fallback):
            return [self.fallback]
        return self.fallback if isinstance(self.fallback, list) else []

    def _says_content(self, locale: str) -> bool:
        """Whether an SMS in a language says what the content says: a text of its own, or one that a step asks for."""
        if self.fallback == "never":
            return False
        return self.contents[locale].sms is not None or any(
            step.channel == SMS and step.text is None for step in self._steps
        )

    @property
    def parameters(self) -> list[str]:
        """The names that its texts take values for; ``1`` is that of ``{1}``."""
        names = {name for content in self.contents.values() for name in content.variables()}
        return sorted(names.union(*(step.names(to_liquid) for step in self._steps)))

    @property
    def plan(self) -> tuple[Step, ...]:
        """The steps that follow the push, or go without one, as a batch carries them."""
        if not self.pushes and not self._steps:
            return (AT_ONCE,)
        return tuple(step.step(to_liquid, self.signature) for step in self._steps)

    def choose(self, wanted: str | None) -> str | None:
        """Return the locale whose contents a person gets, or ``None`` if no locale has contents for the person."""
        return locales.choose(wanted, frozenset(self.contents), self.default_locale)

    def content(self, locale: str) -> tuple[Push | None, str | None]:
        """Return push and SMS text of one locale, as Liquid that takes all parameters by name."""
        push, sms = self.contents[locale].said
        said = sms or (push and one_text(push.body))
        return push, f"{self.signature} {said}" if self.signature and said else sms

    def as_json(self) -> dict[str, Any]:
        """Return what is stored and shown: everything that was said, in one spelling."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"default_locale": self.default_locale}


def check(name: object, value: object) -> Definition:
    """Return a definition from plain data.

    Raises:
        InvalidDefinition: fields are wrong; all are named.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidDefinition(str(name), f"a name has letters, digits, _ . and -, {TEMPLATE_NAME_LIMIT} at most")
    try:
        return Definition.model_validate(value)
    except ValidationError as error:
        told = [one for each in error.errors(include_url=False) for one in _told(name, each)]
        first, *others = InvalidMessage.of(told).problems
        raise InvalidDefinition(first.field, first.problem, others=others) from None


def _told(name: str, error: Any) -> list[InvalidMessage]:
    """Return what is wrong, with the paths of the fields."""
    place = [str(step) for step in error["loc"]]
    if place[:2] in (["fallback", "fallback"], ["fallback", "steps"], ["fallback", "never"]):
        del place[1]
    problem = {
        "missing": "is missing",
        "extra_forbidden": "is not a field of a template",
        "string_type": "must be text; put it in quotes",
        "literal_error": "must be never, or have when and after, or be a list of steps",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidMessage):
        return [InvalidMessage(".".join([name, *place, one.field]), one.problem) for one in cause.problems]
    return [InvalidMessage(".".join([name, *place]), problem)]
