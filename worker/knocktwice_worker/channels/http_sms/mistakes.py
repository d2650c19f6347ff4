"""The mistakes in the providers' file, with their places and what to do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

    from knocktwice_worker.notation.declared_yaml import Document

#: A kind of mistake → what to do about it.
_REMEDIES = {
    "extra_forbidden": "is not a field here; docs/providers.md lists them",
    "missing": "is missing",
    "model_type": "must be an object: fields and their values, indented",
    "dict_type": "must be an object: names and their values, indented",
    "tuple_type": "must be a list; each of it begins with - and a blank",
    "string_type": "must be text; put it in quotes",
    "float_type": "must be a number, without quotes",
    "float_parsing": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "bool_parsing": "must be true or false, without quotes",
}


def told(document: Document, error: ValidationError, built_in: str) -> str:
    """Return all mistakes, one a line. No value is quoted, because it may be a secret.

    Args:
        document: where the fields stand.
        built_in: the name of the built-in provider.
    """
    found: Sequence[Any] = error.errors(include_input=False, include_url=False)
    places = [one["loc"] for one in found]
    return "\n".join(
        _told(document, one, built_in)
        for one in found
        # A list is also called too short when what it holds is wrong.
        if not (one["type"] == "too_short" and any(loc[: len(one["loc"])] == one["loc"] != loc for loc in places))
    )


def _told(document: Document, error: Any, built_in: str) -> str:
    names = [built_in if part == "built_in" else part for part in error["loc"]]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".")
    said = _REMEDIES.get(error["type"], error["msg"].removeprefix("Value error, "))
    if not place and error["type"] == "model_type":
        said = "must have 'providers:', and below it a list of them; docs/providers.md has examples"
    return f"{document.place(*error['loc'])}: {place + ': ' if place else ''}{said}"
