"""The placeholders of a message, judged without Liquid: which values each recipient must bring."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from knocktwice_shared.channels.step_content import MEDIA
from knocktwice_shared.messages.problems import fail
from knocktwice_shared.messages.pushes import filled_problem
from knocktwice_shared.messages.values import PERSON, PERSON_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from knocktwice_shared.messages.notifications import Batch
    from knocktwice_shared.messages.values import Text

_PLACEHOLDER = re.compile(r"\{\{-?\s*(\w+)([^}]*)\}\}")


#: What stands behind ``user`` where a worker fills it in.
_OF_PERSON = re.compile(rf"\s*\.\s*({'|'.join(PERSON_FIELDS)})\b")


#: Words that a template takes for values, not for names.
_LITERALS = frozenset({"true", "false", "nil", "null", "empty", "blank"})


def sms_texts(sms_text: Text | None) -> dict[str, str]:
    """Return the texts of ``content.sms``, by field."""
    if sms_text is None or isinstance(sms_text, str):
        return {} if sms_text is None else {"content.sms.text": sms_text}
    return {f"content.sms.text.{tag}": text for tag, text in sms_text.items()}


def require_params(batch: Batch) -> None:
    """Refuse a missing placeholder value here, where it can be known: plain ``{{ name }}`` without logic or default.

    Raises:
        InvalidMessage: a recipient brings no value for a name; it is named.
    """
    texts = {} if batch.push is None else {f"content.push.{place}": text for place, text in batch.push.texts()}
    texts |= sms_texts(batch.sms_text)
    for i, step in enumerate(batch.plan or ()):
        texts |= {f"plan[{i}].{place}": text for place, text in step.filled()}
    if any("{%" in text for text in texts.values()):
        return
    needed = {
        name: path
        for path, text in texts.items()
        for name, filters in _PLACEHOLDER.findall(text)
        if "default" not in filters and name not in _LITERALS and not (name == PERSON and _OF_PERSON.match(filters))
    }
    if batch.locales:
        needed = _needed_in_all(batch, needed)
    for name, path in needed.items():
        if name[0].isdigit():
            # A template would print the number itself, and people would read "Hello 1".
            fail(path, f"uses {{{{ {name} }}}}, a number; placeholders have names, like {{{{ name }}}}", None)
    for i, recipient in enumerate(batch.recipients):
        values = recipient.values
        if needed.keys() <= values.keys():
            continue
        for name, path in needed.items():
            if name not in values:
                fail(f"recipients[{i}].params.{name}", f"is missing; {path} uses {{{{ {name} }}}}", None)


def _needed_in_all(batch: Batch, needed: Mapping[str, str]) -> dict[str, str]:
    """Return the names that every language needs: which one a recipient gets only a worker knows."""
    return {
        name: path
        for name, path in needed.items()
        if all(
            any(name == found for text in _texts_in(batch, locale) for found, _ in _PLACEHOLDER.findall(text))
            for locale in batch.locales
        )
    }


def _texts_in(batch: Batch, locale: str) -> Iterator[str]:
    push, sms_text = batch.spoken(locale)
    if push is not None:
        yield from (text for _, text in push.texts())
    if sms_text is not None:
        yield sms_text
    for step in batch.plan or ():
        yield from (text for _, text in step.spoken(locale).filled())


def require_addresses(batch: Batch) -> None:
    """Refuse values here that make no address of ``link``, ``image`` or ``media``, where that can be known.

    Raises:
        InvalidMessage: a recipient's values make none.
    """
    for path, name, text in _addresses(batch):
        if "{{" not in text:
            continue
        for i, recipient in enumerate(batch.recipients):
            if problem := filled_problem(name, text, recipient.values):
                fail(f"recipients[{i}].params", f"fill in {path} to what {problem}", None)


def _addresses(batch: Batch) -> Iterator[tuple[str, str, str]]:
    """Yield the addresses of a message that are for everybody: where each stands, its field, and the address."""
    for name in ("link", "image"):
        text = None if batch.push is None else getattr(batch.push, name)
        if isinstance(text, str):
            yield f"content.push.{name}", name, text
    for i, step in enumerate(batch.plan or ()):
        media = step.content.get(MEDIA)
        if isinstance(media, list):
            yield from ((f"plan[{i}].{MEDIA}[{place}]", MEDIA, text) for place, text in enumerate(media))
