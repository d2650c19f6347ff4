"""A file in YAML or JSON that a model checks: all mistakes are told at once, each with its line and the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from knocktwice_worker.notation import declared_yaml
from knocktwice_worker.notation.declared_yaml import Document, Unreadable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_Model = TypeVar("_Model", bound=BaseModel)


class WrongValues(Unreadable):
    """The file has wrong values. The message has one line for each, with its place and the fix."""


def read(
    path: str, model: type[_Model], remedies: Mapping[str, str], *, names: Collection[int] = ()
) -> tuple[Document, _Model]:
    """Read a file and check it.

    Args:
        path: the file's; ``-`` is the standard input.
        model: checks it.
        remedies: pydantic's name of a mistake → what to do about it; others have pydantic's own words.
        names: at which depths the keys are names, which may be written like numbers.

    Raises:
        Unreadable: the file is not there, or not YAML.
        WrongValues: a value is wrong.
    """
    document = declared_yaml.read(path)
    try:
        return document, model.model_validate(document.value)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
    places = [one["loc"] for one in found]
    # pydantic also calls a list too short whose only item is wrong.
    own = [one for one in found if one["type"] != "too_short" or not any(_within(one["loc"], it) for it in places)]
    raise WrongValues(
        "\n".join(_told(document, one["loc"], remedies.get(one["type"], one["msg"]), names) for one in own)
    )


def _within(outer: tuple[int | str, ...], inner: tuple[int | str, ...]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _told(document: Document, loc: tuple[int | str, ...], problem: str, names: Collection[int]) -> str:
    steps = tuple(str(part) if depth in names else part for depth, part in enumerate(loc) if part != "[key]")
    place = re.sub(r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else part for part in steps))
    said = problem.removeprefix("Value error, ")
    return f"{document.place(*steps)}: {place + ': ' if place else ''}{said}"
