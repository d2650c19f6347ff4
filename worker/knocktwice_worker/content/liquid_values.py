"""The values in Liquid templates: the text of each type, and a measure of the work that a value causes."""

from __future__ import annotations

import json
from typing import Any


class _Object(dict[str, Any]):
    """An object, which is written as JSON; Python would write itself."""

    def __str__(self) -> str:
        return _json(self)


class _List(list[Any]):
    """A list, which a filter of texts reads as JSON. Liquid itself writes its items one after the other."""

    def __str__(self) -> str:
        return _json(self)


def wrapped(value: Any) -> Any:
    """Return a value whose lists and objects, at whatever depth, are written as people or programs can read them."""
    if isinstance(value, dict):
        return _Object({name: wrapped(part) for name, part in value.items()})
    if isinstance(value, list | tuple):
        return _List(wrapped(part) for part in value)
    return value


def listed(value: Any) -> Any:
    """Return what a filter made, lists as above; their items are so already."""
    return _List(value) if type(value) in (list, tuple) else value


def said(value: object) -> object:
    """Return ``true``, ``false`` and nothing as Liquid writes them, and anything else as it is."""
    if value is None:
        return ""
    return ("true" if value else "false") if type(value) is bool else value


def flat(value: object) -> object:
    """Return a list as Liquid writes it, its items one after the other, and anything else as it is."""
    return "".join(str(said(item)) for item in value) if isinstance(value, list | tuple) else value


def weight(value: object, most: int) -> int:
    """Return about how many characters a value has; above ``most`` it is only known to be above."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        # Not isinstance(): a value that is missing minds being asked for its class.
        part: Any = waiting.pop()
        kind = type(part)
        if issubclass(kind, str):
            total += len(part)
        elif issubclass(kind, dict):
            total += len(part)
            waiting.extend(part.values())
        elif issubclass(kind, list | tuple):
            total += len(part)
            waiting.extend(part[: most - total + 1])
        elif issubclass(kind, int):
            total += part.bit_length() // 4
    return total


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
