"""Masks: what may be shown of something personal."""

from __future__ import annotations


def mask(number: str) -> str:
    """Return a phone number that still can be told from others but not dialled: ``+1650•••00``. Empty stays empty."""
    if not number:
        return ""
    return f"{number[:5]}•••{number[-2:]}" if len(number) > _SHORT else "•••"


#: Short codes and names: what the ends of one show is nearly all of it.
_SHORT = 8
