"""Languages: which of the contents there are suits a person best.

The distance of two languages is that of the Unicode CLDR (https://www.unicode.org/reports/tr35/#LanguageMatching), with
likely subtags and macro-languages, as langcodes computes it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from langcodes import Language, standardize_tag, tag_distance

#: The greatest distance at which a text still helps. Up to here it is another country's spelling, a sister language, or
#: one that nearly all readers of the other know; from 50 on the script is another one.
_NEAR = 40
#: What CLDR takes off for the two ways to write Chinese: 15 and 19, where other scripts are 50 apart.
_CHINESE_SCRIPTS = 35
#: Near by the data of langcodes, and not any more by CLDR's own: each of these readers is given the default instead.
_APART = frozenset(
    {*((a, b) for a in ("bs", "hr", "sr") for b in ("bs", "hr", "sr") if a != b), ("ca", "es"), ("uk", "ru")}
)
#: Scripts by other names than ISO 15924's: .NET's, and modifiers of POSIX.
_SCRIPTS = {"chs": "Hans", "cht": "Hant", "latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva"}
_ALONE = re.compile(r"[A-Za-z]{2}")


def canonical(tag: str) -> str:
    """Return a locale in one spelling: ``de_at`` is ``de-AT``, ``zh-TW`` and ``zh_TW_#Hant`` are ``zh-Hant-TW``.

    Raises:
        ValueError: the Unicode CLDR does not know it. The message names what may be meant.
    """
    try:
        standard = standardize_tag(plain(tag))
        if standard.partition("-")[0] == "und" or tag.endswith(("-", "_")):
            raise ValueError
        return str(Locale.parse(standard.replace("-", "_"))).replace("_", "-")
    except (ValueError, UnknownLocaleError, TypeError):
        hint = _meant(tag)
        raise ValueError(f"is not a locale such as de or de-AT{f'; did you mean {hint}?' if hint else ''}") from None


@lru_cache(maxsize=10_000)
def negotiate(wanted: str, available: frozenset[str]) -> str | None:
    """Return the best of the given locales for a person, or ``None`` if the person could read none of them.

    ``de-AT`` takes ``de-AT``, else ``de``; ``es-MX`` takes ``es-419`` before ``es``, ``nb`` takes ``no``, ``pt-PT``
    takes ``pt-BR`` where there is no other Portuguese, and ``zh-HK`` takes Traditional Chinese before Simplified.

    Args:
        wanted: a language tag as a phone tells it.
        available: canonical locales.
    """
    # A browser's header has several, the best one first.
    tag = _known(plain(re.split(r"[,;]", wanted, maxsplit=1)[0]))
    if tag is None:
        return None
    try:
        distances = [(_distance(tag, locale), locale != tag, len(locale), locale) for locale in available]
    except (ValueError, TypeError):
        return None
    if tag == "und" or not distances:
        return None
    distance, *_, best = min(distances)
    return best if distance <= _NEAR else None


def choose(wanted: str | None, available: frozenset[str], default: str | None) -> str | None:
    """Return whose contents a person gets, or ``None`` if there are none for the person.

    Args:
        wanted: the person's language tag; ``None``: it is not known.
        available: canonical locales.
        default: the locale for everybody else; ``None``: there are no contents for them.
    """
    return (wanted and negotiate(wanted, available)) or default


def _known(tag: str) -> str | None:
    """Return a tag as the registry has it, without endings that nobody registered: ``no-NO-NY`` is ``no-NO``."""
    while tag:
        try:
            return standardize_tag(tag)
        except (ValueError, TypeError):
            tag = tag.rpartition("-")[0]
    return None


def _distance(wanted: str, there: str) -> int:
    distance = tag_distance(wanted, there)
    ours, theirs = (Language.get(tag).maximize() for tag in (wanted, there))
    if (ours.language, theirs.language) in _APART:
        return 100
    if ours.language == theirs.language == "zh" and ours.script != theirs.script:
        return distance - _CHINESE_SCRIPTS
    return distance


def plain(text: str) -> str:
    """Return the language tag of a locale of Java, iOS, POSIX or a browser, without the parts that name no language.

    ``zh_CN_#Hans`` (Java puts the script last), ``en_US@calendar=buddhist``, ``de_AT.UTF-8``, ``de-DE-u-co-phonebk``,
    ``sr_RS@latin``, ``zh-CHT``.
    """
    text, _, modifier = text.strip().partition("@")
    words, java, extra = text.partition(".")[0].partition("#")
    parts = [part for part in re.split(r"[-_]", words) if part]
    if java:
        # "th_TH_TH_#u-nu-thai" says the country again where others have a variant.
        parts = list(dict.fromkeys(parts))
    if len(parts) > 1 and (script := _SCRIPTS.get(parts[1].casefold())):
        # .NET's names of the two ways to write Chinese.
        parts[1] = script
    # From a single letter on, it is an extension.
    parts = parts[: next((n for n, part in enumerate(parts) if n and len(part) == 1), len(parts))]
    script = re.split(r"[-_]", extra)[0]
    if len(script) == 4 and script.isalpha():
        parts.insert(1, script)
    elif modifier.casefold() in _SCRIPTS:
        parts.insert(1, _SCRIPTS[modifier.casefold()])
    return "-".join(parts)


def _meant(text: str) -> str | None:
    """Return the language of a country code or of an English name: ``zh`` for ``cn`` and ``chinese``."""
    if _ALONE.fullmatch(text):
        likely = get_global("likely_subtags").get(f"und_{text.upper()}")
        # CLDR does not list those where English is likely.
        return likely.partition("_")[0] if likely else "en" if text.upper() in Locale("en").territories else None
    names = Locale("en").languages
    return next((code for code, name in names.items() if name.casefold() == text.strip().casefold()), None)
