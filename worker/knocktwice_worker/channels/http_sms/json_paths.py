"""Reading what a provider says in JSON, by paths that a file names. Nothing that it may say is an error here."""

from __future__ import annotations

import json
import re

#: Longest id of a message that is kept.
LONGEST_ID = 200
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})")
#: A code that is a word. Providers also quote numbers and texts: a text has blanks, and no phone number has so few digits.
_WORD = re.compile(r"(?=(?:[^0-9]*[0-9]){0,6}[^0-9]*$)[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


def parse(body: bytes) -> object:
    """Return what a body says; ``None`` if it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def at(value: object, path: str) -> object:
    """Return what stands at ``data.0.id``; ``None`` if there is nothing. A key with a dot in it is found, too."""
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
    """Return a text or a number as text; anything else is none."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def word(value: object) -> str:
    """Return a value as a file would write it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else text(value)


def code(value: object) -> int | str | None:
    """Return an error code: a whole number, or a word such as ``INVALID_NUMBER``; ``None`` if it may be something else."""
    said = text(value).strip()
    if _NUMBER.fullmatch(said):
        return int(said)
    return said if _WORD.fullmatch(said) else None


def id_of(provider: str, value: object) -> str | None:
    """Return our name of a provider's message; ``None`` if its id is none.

    Two providers may well have one id; each of ours names one delivery. What cannot be printed, such as a NUL or half a
    surrogate pair, the database does not take.
    """
    id_ = text(value).strip()
    return f"{provider}:{id_}" if id_ and len(id_) <= LONGEST_ID and id_.isprintable() else None
