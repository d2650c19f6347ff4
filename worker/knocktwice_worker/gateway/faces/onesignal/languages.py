"""Texts by language: OneSignal's codes, and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What OneSignal shows where it has nothing in a person's language.
DEFAULT = "en"
#: OneSignal's codes that mean something else elsewhere, or nothing.
_OURS = {"cn": "zh-Hans", "zh": "zh-Hans", "zh-hans": "zh-Hans", "zh-hant": "zh-Hant", "zh_hans": "zh-Hans"}
_OURS |= {"zh_hant": "zh-Hant", "tw": "zh-Hant"}
#: Our locales → OneSignal's codes, where they differ.
_THEIRS = {"zh-hans": "zh-Hans", "zh-hant": "zh-Hant", "zh-cn": "zh-Hans", "zh-tw": "zh-Hant", "zh-hk": "zh-Hant"}


def ours(code: str) -> str:
    """Return a locale as the rest of the system has it."""
    return _OURS.get(code.strip().lower(), code.strip().replace("_", "-"))


def theirs(locale: str | None) -> str | None:
    """Return the code that OneSignal has for a locale."""
    return None if locale is None else _THEIRS.get(locale.lower(), locale.partition("-")[0].lower())


def read(value: object, field: str) -> dict[str, str]:
    """Return language → text, with our codes, the default first.

    Raises:
        InvalidMessage: it is no object of texts, or has no text in English.
    """
    if isinstance(value, str):
        value = {DEFAULT: value}
    if not isinstance(value, dict):
        raise InvalidMessage(field, 'must be an object of texts by language, like {"en": "Hello"}')
    texts: dict[str, str] = {}
    for code, text in value.items():
        if text is None:
            continue
        if not isinstance(text, str) or not text.strip():
            raise InvalidMessage(f"{field}.{code}", "must be text")
        if ours(code) in texts:
            raise InvalidMessage(f"{field}.{code}", f"is there twice: {code} is {ours(code)}")
        texts[ours(code)] = text
    if DEFAULT not in texts:
        raise InvalidMessage(field, 'must have a text in "en", which everybody gets who reads no other')
    return {DEFAULT: texts.pop(DEFAULT), **texts}


def together(texts: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """Return the texts of one message as the contract takes them: each in all languages that any of them has.

    One that lacks a language says it in English, as OneSignal does.

    Args:
        texts: name → language → text.
    """
    languages = list(dict.fromkeys(language for one in texts.values() for language in one))
    if languages == [DEFAULT]:
        return {name: one[DEFAULT] for name, one in texts.items()}
    return {name: {language: one.get(language, one[DEFAULT]) for language in languages} for name, one in texts.items()}
