"""Reads a provider's JSON by the paths that the file names. Unexpected JSON is never an error here."""

from __future__ import annotations

import json
import re

#: The longest provider's id that is kept.
LONGEST_ID = 200
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})")
#: An error code that is a word. Providers also quote numbers and texts in this place: a text has blanks, and a phone
#: number has more than six digits.
_WORD = re.compile(r"(?=(?:[^0-9]*[0-9]){0,6}[^0-9]*$)[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


def parse(body: bytes) -> object:
    """Return the content of a body; ``None`` if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def at(value: object, path: str) -> object:
    """Return the value at a path such as ``data.0.id``; ``None`` if there is none. A key may contain a dot."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def text(value: object) -> str:
    """Return a text or a number as text; other values become the empty text."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def word(value: object) -> str:
    """Return a value as the file would write it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else text(value)


def code(value: object) -> int | str | None:
    """Return an error code: a whole number or a word such as ``INVALID_NUMBER``; ``None`` for any other value."""
    said = text(value).strip()
    if _NUMBER.fullmatch(said):
        return int(said)
    return said if _WORD.fullmatch(said) else None


def id_of(provider: str, value: object) -> str | None:
    """Return our name of a provider's message; ``None`` if its id is not usable.

    Two providers may use the same id, so our name includes the provider. An id with unprintable characters is not
    usable: the database accepts neither NUL nor half a surrogate pair.
    """
    id_ = text(value).strip()
    return f"{provider}:{id_}" if id_ and len(id_) <= LONGEST_ID and id_.isprintable() else None
