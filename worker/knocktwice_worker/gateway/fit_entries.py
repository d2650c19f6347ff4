"""Requests with many entries keep those that are fit, and name the others with their places and reasons.

A refusal of all because of one would leave 499 people without their notification, and a caller that sends the request
again without change would never get it through. ``"strict": true`` asks for all or none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from knocktwice.drafts import Draft

#: The field of a request that asks for all or none.
STRICT = "strict"


@dataclass(slots=True)
class Kept:
    """The rest of a request.

    Attributes:
        draft: the message with the fit entries.
        places: the places of these in the request.
        refused: the problems of the others: their place, field and detail.
    """

    draft: Draft
    places: Sequence[int]
    refused: list[dict[str, Any]] = field(default_factory=list)


async def keep(
    body: Mapping[str, Any],
    name: str,
    make: Callable[[Mapping[str, Any], Sequence[int]], Awaitable[Draft]],
    ambiguous: Callable[[Sequence[Any]], Sequence[InvalidMessage]] = lambda _: (),
) -> Kept:
    """Return the message of a request, without the entries that cannot be taken.

    Args:
        name: the field with the entries.
        make: makes the message of a request that holds only the entries at these places. It may be called several
            times.
        ambiguous: returns what is wrong between the entries, so that none of them can be taken.

    Raises:
        InvalidMessage: what the entries share is wrong, none of them is fit, or the request is strict.
    """
    entries = body.get(name)
    strict = body.get(STRICT, False)
    if not isinstance(strict, bool):
        raise InvalidMessage(STRICT, "must be true or false")
    asked = {field: value for field, value in body.items() if field != STRICT}
    if not isinstance(entries, list):
        return Kept(await make(asked, ()), ())
    places, refused = list(range(len(entries))), list[InvalidMessage]()
    while True:
        try:
            draft = await make({**asked, name: [entries[place] for place in places]}, places)
        except InvalidMessage as error:
            told = error.renamed(*_at(name, places))
            unfit, unclear = _places(told, name), ambiguous(entries)
            if strict or unclear or unfit is None or unfit >= set(places):
                raise InvalidMessage.of([*refused, *told.problems, *unclear]) from None
            refused += told.problems
            places = [place for place in places if place not in unfit]
        else:
            shown = [_shown(one, name) for one in refused]
            return Kept(draft, places, sorted(shown, key=lambda one: int(one["index"])))


def _at(name: str, places: Sequence[int]) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Return how to say in a text where an entry stands in the request."""
    pattern = re.compile(rf"\b{name}\[([0-9]+)\]")

    def renamed(text: str) -> str:
        return pattern.sub(lambda found: f"{name}[{_nth(places, int(found[1]))}]", text)

    return renamed, renamed


def _nth(places: Sequence[int], number: int) -> int:
    return places[number] if number < len(places) else number


def _places(error: InvalidMessage, name: str) -> set[int] | None:
    """Return which entries are unfit; ``None``: something else is wrong, too."""
    found = [_place(one.field, name) for one in error.problems]
    return None if None in found else {place for place in found if place is not None}


def _place(path: str, name: str) -> int | None:
    inside = path.startswith(f"{name}[")
    return int(path[len(name) + 1 : path.index("]")]) if inside else None


def _shown(problem: InvalidMessage, name: str) -> dict[str, Any]:
    return {"index": _place(problem.field, name), "field": problem.field, "detail": problem.problem}
