"""Values as they are typed in a shell: NAME=VALUE and JSON. What could be read in two ways is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return the values of a repeated option, by name.

    Args:
        option: what the error calls it, like ``--param``.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} must be NAME=VALUE", param_hint=option)
        if name in given:
            raise typer.BadParameter(f"{name} is given twice; leave one out", param_hint=option)
        given[name] = value
    return given


def json_value(text: str, option: str, what: str = "a JSON object") -> Any:
    """Return the value of an option that is written in JSON.

    Args:
        option: what the error calls it, like ``--params``.
        what: what is wanted, for people.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"must be {what}: {error}", param_hint=option) from None


def _object(given: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in given:
        if name in made:
            raise ValueError(f"{name} stands twice in one object")
        made[name] = value
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
