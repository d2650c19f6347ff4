"""Phone numbers in options and arguments, in their one spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.notation.phone_numbers import Rules


def textable(given: str, name: str, rules: Rules) -> str:
    """Return a number that may be texted.

    Args:
        name: the option or argument, for the error.

    Raises:
        InvalidMessage: it is none.
    """
    try:
        return canonical(given, rules)
    except UnusableNumber as error:
        raise InvalidMessage(name, str(error)) from None


def any_of(given: Sequence[str], name: str, rules: Rules) -> list[str]:
    """Return numbers of any kind, sorted, to look up or to put on a list: also those that would never be texted.

    Raises:
        InvalidMessage: some are none; all of them are named by their place.
    """
    numbers, problems = set(), []
    for place, number in enumerate(given):
        path = f"{name}[{place}]" if name.islower() else name.lower()
        try:
            numbers.add(canonical(number, rules.of_anyone))
        except UnusableNumber as error:
            problems.append(InvalidMessage(path, str(error)))
    if problems:
        first, *others = problems
        raise InvalidMessage(first.field, "; ".join([first.problem, *map(str, others)]))
    return sorted(numbers)
