"""Counts in sentences: ``1 message``, ``1,200 messages``, ``1 person``."""

from __future__ import annotations


def many(count: int, one: str, more: str | None = None) -> str:
    """Return a count with what follows it.

    Args:
        one: a noun, or how the sentence goes on, for one.
        more: the same for any other count; left out, ``one`` with an s.
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"
