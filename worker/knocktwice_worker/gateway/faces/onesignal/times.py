"""Times as OneSignal's documents write them, and times of day."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, timezone
from email.utils import parsedate_to_datetime

from knocktwice_shared.errors import InvalidMessage

#: The farthest that a clock on a wall is ahead of UTC.
_EASTMOST = timedelta(hours=14)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: "September 24th 2015, 2:00:00 pm UTC-07:00", "Sept 24 2015 14:00:00 GMT-0700", "Thu Sep 24 2015 14:00:00 GMT-0700
#: (PDT)".
_WORDS = re.compile(
    r"(?:[A-Za-z]{3,9},?\s+)?(?P<month>[A-Za-z]{3,9})\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year>\d{4}),?\s+"
    r"(?P<clock>\d{1,2}:\d{2}(?::\d{2})?)\s*(?P<half>[AaPp][Mm])?\s*(?P<zone>\S+)?(?:\s+\([^)]*\))?",
    re.ASCII,
)
#: "2015-09-24 14:00:00 GMT-0700".
_FIGURES = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[ T](?P<clock>\d{1,2}:\d{2}(?::\d{2})?)(?:\.\d+)?\s*(?P<zone>\S+)?", re.ASCII
)
_ZONE = re.compile(r"(?:GMT|UTC|Z)?(?:([+-])(\d{1,2}):?(\d{2})?)?", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*([AaPp][Mm])?", re.ASCII)


def moment(value: object, field: str) -> datetime:
    """Return a time with its offset.

    Raises:
        InvalidMessage: it is none of the forms that OneSignal documents, or it has no offset.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**33:
        return datetime.fromtimestamp(value, UTC)
    text = value.strip() if isinstance(value, str) else ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = _spelled(text, field)
    if found.tzinfo is None:
        raise InvalidMessage(field, "must say its offset from UTC, like 2026-11-21 09:30:00 GMT+0100")
    return found


def _spelled(text: str, field: str) -> datetime:
    try:
        if words := _WORDS.fullmatch(text):
            month = _MONTHS.index(words["month"][:3].lower()) + 1
            at = datetime.combine(datetime(int(words["year"]), month, int(words["day"]), tzinfo=UTC), _time(words))
        elif figures := _FIGURES.fullmatch(text):
            words = figures
            at = datetime.combine(datetime.fromisoformat(figures["date"]), _time(figures))
        else:
            return parsedate_to_datetime(text)
        return at.replace(tzinfo=_offset(words["zone"] or ""))
    except (ValueError, OverflowError, TypeError):
        raise InvalidMessage(field, "must be a time with its offset, like 2026-11-21 09:30:00 GMT+0100") from None


def _time(found: re.Match[str]) -> time:
    half = found.groupdict().get("half") or ""
    return clock(f"{found['clock']}{half}", "")


def _offset(zone: str) -> timezone | None:
    found = _ZONE.fullmatch(zone)
    if found is None:
        raise ValueError
    if not zone:
        return None
    if found[1] is None:
        return UTC
    span = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
    return timezone(span if found[1] == "+" else -span)


def clock(value: object, field: str) -> time:
    """Return a time of day: ``9:00AM``, ``21:45`` or ``9:45:30``.

    Raises:
        InvalidMessage: it is none.
    """
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise InvalidMessage(field, "must be a time of day, like 9:00AM or 21:45")
    hour, half = int(found[1]), (found[4] or "").lower()
    if half and not 1 <= hour <= 12:
        raise InvalidMessage(field, "must be a time of day, like 9:00AM or 21:45")
    try:
        return time(hour % 12 + 12 * (half == "pm") if half else hour, int(found[2]), int(found[3] or 0))
    except ValueError:
        raise InvalidMessage(field, "must be a time of day, like 9:00AM or 21:45") from None


def next_local(at: time, now: datetime) -> datetime:
    """Return the next time without an offset at which no clock on earth has passed this time of day yet."""
    eastmost = now.astimezone(UTC).replace(tzinfo=None) + _EASTMOST
    day = eastmost.date() if eastmost.time() <= at else eastmost.date() + timedelta(days=1)
    return datetime.combine(day, at)
