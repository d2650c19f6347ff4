"""Languages: which of the contents there are suits a person best."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from babel import Locale, UnknownLocaleError
from babel.core import get_global

if TYPE_CHECKING:
    from collections.abc import Iterator


def canonical(tag: str) -> str:
    """Return a locale in one spelling: ``de_at`` is ``de-AT``, ``zh-TW`` is ``zh-Hant-TW``.

    Raises:
        ValueError: the Unicode CLDR does not know it.
    """
    try:
        return _dashed(Locale.parse(tag.replace("-", "_")))
    except (ValueError, UnknownLocaleError, TypeError):
        raise ValueError("is not a locale such as de or de-AT") from None


@lru_cache(maxsize=10_000)
def negotiate(wanted: str, available: frozenset[str]) -> str | None:
    """Return the best of the locales there are for somebody, or ``None`` if none is in their language.

    ``de-AT`` takes ``de-AT``, else ``de``; ``es-MX`` takes ``es-419`` before ``es``, and ``nb`` takes ``no``: the parents
    of a locale are those of the Unicode CLDR.

    Args:
        wanted: a language tag as a phone tells it.
        available: canonical locales.
    """
    try:
        start = canonical(wanted)
    except ValueError:
        return None
    return next((locale for locale in _parents(start) if locale in available), None)


def _parents(locale: str) -> Iterator[str]:
    exceptions = get_global("parent_exceptions")
    while locale and locale != "root":
        yield locale
        locale = exceptions.get(locale.replace("-", "_"), locale.rpartition("-")[0]).replace("_", "-")


def _dashed(locale: Locale) -> str:
    return str(locale).replace("_", "-")
