"""Tags: OneSignal knows only texts; here ``false`` is a boolean and ``3`` a number, so that segments can compare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A number in the one spelling that it is shown in again; longer ones lose digits in JSON.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,9})\.[0-9]{0,5}[1-9]")


def stored(value: object) -> Any:
    """Return a tag's value as it is stored: a text that reads as a number, as true or as false is one."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _DECIMAL.fullmatch(value) else value


def forms(value: str | int | float) -> list[Any]:
    """Return the stored forms of a tag that equal this: as this face stores it, and as our own routes do."""
    kept = stored(value)
    return [kept] if isinstance(kept, str) else [kept, shown(kept)]


def shown(value: object) -> str:
    """Return a tag's value as OneSignal has it: text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(shown(one) for one in value)
    return str(value)


def read(given: object, field: str) -> dict[str, Any]:
    """Return tags as the contract takes them; an empty text removes a tag, as at OneSignal.

    Raises:
        InvalidMessage: it is no object, or a value is no text, number or flag.
    """
    if not isinstance(given, dict):
        raise InvalidMessage(field, "must be an object")
    for name, value in given.items():
        if value is not None and not isinstance(value, str | int | float):
            raise InvalidMessage(f"{field}.{name}", "must be text, a number, true or false")
    return {name: None if value == "" else stored(value) for name, value in given.items()}


def told(found: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as OneSignal shows them."""
    return {name: shown(value) for name, value in found.items()}
