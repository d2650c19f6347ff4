"""Masks: what may be shown of something personal."""

from __future__ import annotations

#: Stands for the number of a person who was erased.
ERASED = "an erased number"

#: Short codes and names: what the ends of one show is nearly all of it.
_SHORT = 8


def mask(number: str) -> str:
    """Return a phone number that still can be told from others but not dialled: ``+1650•••00``. Empty stays empty."""
    if not number:
        return ""
    return f"{number[:5]}•••{number[-2:]}" if len(number) > _SHORT else "•••"


def mask_or_erased(number: str | None) -> str:
    """Return a number as :func:`mask` does, or :data:`ERASED` where none is left."""
    return mask(number) if number else ERASED
