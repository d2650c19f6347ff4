"""Times and spans of time as they are typed at a prompt: ``10m``, ``3h ago``, ``2026-11-22T09:00+01:00``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.notation import durations

#: The longest time ago that can be asked for.
LONGEST = timedelta(days=36_500)


def span(text: str, field: str, most: timedelta = LONGEST) -> timedelta:
    """Return a span of time; a bare number is seconds.

    Args:
        field: the option, for the error.
        most: the longest allowed.

    Raises:
        InvalidMessage: it is none, or too long.
    """
    try:
        return durations.typed(text, most)
    except ValueError as error:
        raise InvalidMessage(field, str(error)) from None


def moment(text: str, field: str) -> datetime:
    """Return a moment that is given as a time or as how long ago it was.

    A time without an offset is by this machine's clock.

    Raises:
        InvalidMessage: it is neither.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - durations.parse(text.strip().removesuffix("ago"), LONGEST)
    except ValueError:
        raise InvalidMessage(field, "must be a time like 2h, 7d or 2026-11-21T09:30+01:00") from None
