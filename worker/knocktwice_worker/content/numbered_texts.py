"""The SMS of a stored template for callers that bring their own push and give values by number: ``{1}``, ``{2}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from knocktwice_shared.channels import MEDIA, SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.content import template_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_shared.messages import Category
    from knocktwice_worker.content.templates import Definition


class NumberedText(NamedTuple):
    """An SMS whose placeholders are numbers.

    Attributes:
        text: with ``{1}``, ``{2}``.
        sender: another than the setting's.
        category: decides consent and quiet hours.
    """

    text: str
    sender: str | None
    category: Category


def find(conn: Connection, name: str, *, signed: bool) -> NumberedText | None:
    """Return the SMS of a stored template; ``None`` if there is none of this name.

    Arguments and errors as of :func:`of`.
    """
    stored = template_store.find(conn, [name]).get(name)
    if stored is None:
        return None
    if isinstance(stored, InvalidMessage):
        raise InvalidMessage("", f"is a template that cannot be used: {stored}")
    return of(stored.definition, signed=signed)


def of(definition: Definition, *, signed: bool) -> NumberedText:
    """Return the SMS of a template, in its default language.

    Args:
        signed: whether the template's own signature stands before the text; not where the caller brings one.

    Raises:
        InvalidMessage: the template forbids an SMS, has several languages and no default, or names its values. The
            field is empty: only the caller knows what named the template.
    """
    if definition.fallback == "never":
        raise InvalidMessage("", "is a template whose fallback is never, which forbids an SMS")
    locale = definition.default_locale or next(iter(definition.contents))
    if definition.default_locale is None and len(definition.contents) > 1:
        raise InvalidMessage("", f"is a template in {', '.join(definition.contents)} without a default_locale")
    content = definition.contents[locale]
    text = content.sms_words or ""
    sender = definition.sender
    steps = definition.fallback if isinstance(definition.fallback, list) else [definition.fallback]
    step = next((one for one in steps if one is not None and one.channel == SMS), None)
    if step is not None:
        if MEDIA in step.content:
            raise InvalidMessage("", "is a template whose SMS has media, which this interface does not take along")
        sender = step.sender or sender
        own = step.text.get(locale) if isinstance(step.text, dict) else step.text
        text = own or text
    if not text:
        raise InvalidMessage("", "is a template that says nothing by SMS")
    if "{{" in text or "{%" in text:
        raise InvalidMessage("", "is a template that names its values; sms_template_params need {1}, {2}")
    if signed and definition.signature is not None:
        text = f"{definition.signature} {text}"
    return NumberedText(text, sender, definition.category)
