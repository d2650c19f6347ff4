"""Texts by language in a message: one for everybody, or one for each language, the same languages everywhere.

Which language suits a person best is the worker's business (``knocktwice_worker/content/locales.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.problems import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from knocktwice_shared.messages.notifications import Batch
    from knocktwice_shared.messages.values import Push, Text

_T = TypeVar("_T")

#: The language of people of any other one, where a message has it and names none.
USUAL = "en"


def text(value: object, path: str, limit: int) -> Text:
    """Check one text for everybody, or texts by language.

    Args:
        value: a text, or an object of texts by locale.
        path: what an error calls it.
        limit: most characters of each text.

    Raises:
        InvalidMessage: one is wrong; it is named.
    """
    if isinstance(value, dict):
        return texts(value, path, lambda one, place: checks.text(one, place, limit))
    return checks.text(value, path, limit)


def texts(value: dict[object, object], path: str, check: Callable[[object, str], _T]) -> dict[str, _T]:
    """Check texts, or what else is said, by language.

    Args:
        value: text by locale.
        path: what an error calls them.
        check: returns a text that is right; it takes the text and its path.

    Raises:
        InvalidMessage: a locale is no language tag or is there twice, there is none, or a text is wrong.
    """
    if not value:
        return fail(path, "has no language; give one text, or texts by language like en and de", {})
    said: dict[str, _T] = {}
    spelt: dict[str, str] = {}
    for tag, one in value.items():
        locale = checks.locale(tag, f"{path}.{tag}")
        if (first := spelt.setdefault(locale.casefold().replace("_", "-"), locale)) != locale:
            fail(f"{path}.{tag}", f"is the same language as {first}; give one text for it", None)
        said[locale] = check(one, f"{path}.{tag}")
    return said


def of_push(push: Push, path: str) -> tuple[str, ...]:
    """Return the languages of a push; none if it is the same for everybody. Raises like :func:`of`."""
    return _same((f"{path}.{name}", said) for name, said in push.by_language())


def of(batch: Batch) -> tuple[str, ...]:
    """Return the languages of a message, in the order in which they are given; none if it is the same for everybody.

    Raises:
        InvalidMessage: a text lacks a language that another text has.
    """
    return _same(_by_language(batch))


def default(locales: tuple[str, ...], given: str | None) -> str:
    """Return the language of people of any other or an unknown one.

    Args:
        locales: the message's languages, at least one.
        given: what the message says.

    Raises:
        InvalidMessage: it is none of the message's, or has to be said.
    """
    if given is not None:
        by_spelling = {tag.casefold().replace("_", "-"): tag for tag in locales}
        known = by_spelling.get(given.casefold().replace("_", "-"))
        if known is None:
            raise InvalidMessage("content.default_locale", f"has no texts ({given}); there are {', '.join(locales)}")
        return known
    if len(locales) == 1:
        return locales[0]
    if USUAL in locales:
        return USUAL
    problem = f"is missing; say which of {', '.join(locales)} people of another language get"
    raise InvalidMessage("content.default_locale", problem)


def place_of(batch: Batch, tag: str) -> str:
    """Return the first text of a message that is there in a language, as an error names it."""
    return next(f"{path}.{tag}" for path, said in _by_language(batch) if tag in said)


def _by_language(batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if batch.push is not None:
        yield from ((f"content.push.{name}", said) for name, said in batch.push.by_language())
    if batch.sms_text is not None and not isinstance(batch.sms_text, str):
        yield "content.sms.text", batch.sms_text
    for place, step in enumerate(batch.plan or ()):
        yield from ((f"plan[{place}].{name}", said) for name, said in step.by_language())


def _same(fields: Iterator[tuple[str, Mapping[str, Any]]]) -> tuple[str, ...]:
    given = dict(fields)
    locales = tuple(dict.fromkeys(tag for said in given.values() for tag in said))
    for path, said in given.items():
        for tag in locales:
            if tag not in said:
                fail(path, f"has nothing for {tag}, which other texts have; give the same languages everywhere", None)
    return locales
