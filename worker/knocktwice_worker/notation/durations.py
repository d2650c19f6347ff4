"""Spans of time as people write them: ``90s``, ``5m``, ``2h``, ``1d``."""

from __future__ import annotations

import re
from datetime import timedelta

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.ASCII)
_BARE = re.compile(r"\d+(?:\.\d+)?(?:[eE]\d)?", re.ASCII)
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse(value: object, most: timedelta) -> timedelta:
    """Return a span of time from a text, or from a number of seconds.

    Args:
        most: the longest allowed.

    Raises:
        ValueError: it is neither, or too long.
    """
    found = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
    if found:
        value = float(found[1]) * _UNITS[found[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError('must be seconds or a time like "90s", "5m", "2h" or "1d"')
    if not 0 <= value <= most.total_seconds():
        raise ValueError(f"must be between 0 and {most.days} days")
    return timedelta(seconds=value)


def typed(value: object, most: timedelta) -> timedelta:
    """Return a span of time from a text that was typed at a prompt, where a bare number is seconds.

    Args:
        most: the longest allowed.

    Raises:
        ValueError: it is neither a number nor a span, or too long.
    """
    if isinstance(value, str) and _BARE.fullmatch(value.strip()):
        value = float(value)
    return parse(value, most)


def written(span: timedelta) -> str:
    """Return a span of time in the largest unit that leaves no fraction."""
    seconds = span.total_seconds()
    for unit, size in _UNITS.items():
        if seconds and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
