"""The content of a template in one language: its push, its text and the names of the values that they take."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Priority, Push, one_text, parse_content
from knocktwice_shared.messages.problems import collected, fail, settle
from knocktwice_worker.content.liquid import BrokenTemplate, variables

if TYPE_CHECKING:
    from typing import Self

#: ``{1}``, where it does not stand inside Liquid's own markup.
_POSITIONAL = re.compile(
    r"(?s:\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{\{.*?\}\}|\{%.*?%\})|\{([1-9][0-9]?)\}",
)


class Part(BaseModel):
    """A part of a template's declaration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PushContent(Part):
    """The push's texts in one language, and how it looks and sounds; the fields are the contract's."""

    title: str
    body: str | None = None
    data: dict[str, str] = Field(default_factory=dict)
    link: str | None = None
    image: str | None = None
    subtitle: str | None = None
    sound: str | None = None
    badge: int | str | None = None
    channel_id: str | None = None
    priority: Priority | None = None
    icon: str | None = None
    color: str | None = None
    android: dict[str, Any] = Field(default_factory=dict)
    apns: dict[str, Any] = Field(default_factory=dict)
    webpush: dict[str, Any] = Field(default_factory=dict)


class Content(Part):
    """The texts of a notification in one language.

    Attributes:
        text: what every channel says that has no text of its own here.
        push: the push; ``None``: there is none, and the first step goes at once. Without a body it says ``text``.
        sms: the text of each SMS that has none of its own; without it ``text``, or else the push's body.
    """

    text: str | None = None
    push: PushContent | None = None
    sms: str | None = None

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        _, found = collected(self._check)
        if found:
            raise InvalidMessage.of(found).renamed(self._called)
        return self

    def _check(self) -> None:
        self._parsed()
        settle()
        self.variables()

    def _called(self, field: str) -> str:
        """Return what the declaration calls a field of the contract."""
        field = field.removeprefix("content.").replace("sms.text", "sms")
        own = self.sms if field == "sms" else self.push and self.push.body
        return "text" if field in ("sms", "push.body") and own is None and self.text is not None else field

    def _parsed(self) -> tuple[Push | None, str | None]:
        fields: dict[str, Any] = {}
        if self.push is not None:
            push = self.push.model_dump(mode="json")
            fields["push"] = push if self.push.body is not None else {**push, "body": self.text}
        # Without a push the text is all there is; behind one that says the text, too, it is the push's body.
        own = self.text if self.sms is None and (self.push is None or self.push.body is not None) else self.sms
        if own is not None:
            fields["sms"] = {"text": own}
        push_, text = parse_content(fields, "content")
        return push_, None if text is None else one_text(text)

    @cached_property
    def said(self) -> tuple[Push | None, str | None]:
        """Push and SMS text, as Liquid that takes all parameters by name.

        Raises:
            InvalidMessage: a field is wrong.
        """
        push, sms = self._parsed()
        return push and push.with_texts(lambda _, text: to_liquid(text)), sms and to_liquid(sms)

    @property
    def sms_words(self) -> str | None:
        """The text of an SMS that has none of its own, as it was declared; ``None``: there is none."""
        if self.sms is not None or self.text is not None:
            return self.sms if self.sms is not None else self.text
        return None if self.push is None else self.push.body

    def texts(self) -> dict[str, str]:
        """Return what may hold placeholders, by field, as Liquid."""
        push, sms = self.said
        texts = {} if push is None else {f"push.{place}": text for place, text in push.texts()}
        return texts if sms is None else texts | {"sms": sms}

    def variables(self) -> frozenset[str]:
        """Return the names of the parameters; ``1`` is that of ``{1}``."""
        names: set[str] = set()
        for field, text in self.texts().items():
            try:
                names |= variables(text)
            except BrokenTemplate as error:
                fail(field, str(error), None)
        return frozenset(names)


def to_liquid(text: str) -> str:
    """Write ``{1}`` as Liquid; what is Liquid already stays."""
    return _POSITIONAL.sub(lambda m: f'{{{{ ["{m[1]}"] }}}}' if m[1] else m[0], text)
