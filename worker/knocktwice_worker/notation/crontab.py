"""Crontabs: the five fields that every ``cron`` reads, and the times that they name.

cronsim reads them, strictly, and knows Debian cron's rules: of day of the month and day of the week either may fit
where both are restricted, and a time that the clocks skip or repeat still comes once. Refused here as well is what
cronsim takes and other crons read differently, or not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

#: https://manpages.debian.org/trixie/cron/crontab.5.en.html. ``@reboot`` is missing: nothing here boots.
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five.

    Attributes:
        name: what an error calls it.
        values: how many there are; a longer step would silently be no step.
        allowed: what it may hold, for people.
    """

    name: str
    values: int
    allowed: str


_FIELDS = (
    _Field("minute", 60, "0-59"),
    _Field("hour", 24, "0-23"),
    _Field("day of the month", 31, "1-31, L for the last day, LW for the last weekday"),
    _Field("month", 12, "1-12 or jan-dec"),
    _Field(
        "day of the week", 7, "0-7 (0 and 7 are Sunday) or sun-sat, fri#2 for the second Friday, 5L for the last one"
    ),
)
_WEEKDAY = len(_FIELDS) - 1
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_STEP = re.compile(r"(?P<start>[^/]*)/(?P<step>[0-9]+)")
#: Any moment serves to ask whether a crontab ever comes.
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Crontab:
    """Times by the clock on the wall; made by :func:`parse`.

    Attributes:
        spelt: as it was written, with single spaces.
        fields: the five, ``@daily`` resolved.
    """

    spelt: str
    fields: str

    def times(self, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield the times after ``after``, an aware moment, by the clock of a zone; they are in UTC.

        A time that the clocks skip comes when they have skipped; one that comes twice, comes the first time. Where
        minute or hour begin with a star, real time counts: every hour is every hour.
        """
        for moment in CronSim(self.fields, after.astimezone(zone)):
            # Started within an hour that comes twice, cronsim names times of its first turn again.
            real = moment.astimezone(UTC)
            if real > after:
                yield real


def parse(text: str) -> Crontab:
    """Return a crontab.

    Args:
        text: five fields, or ``@daily`` and its like.

    Raises:
        ValueError: it is none, or names a day that does not come; the message names the field and what it may hold.
    """
    spelt = " ".join(text.split())
    if spelt.startswith("@"):
        fields = _NICKNAMES.get(spelt.casefold(), "")
        if not fields:
            raise ValueError(f"{spelt} is not known; there is {', '.join(_NICKNAMES)}")
    else:
        fields = spelt
        _check(fields.split())
    made = Crontab(spelt, fields)
    try:
        next(CronSim(fields, _SOME_TIME))
    except (CronSimError, StopIteration):
        raise ValueError("names a day that does not come for years") from None
    return made


def _check(parts: list[str]) -> None:
    if len(parts) != len(_FIELDS):
        raise ValueError('must be five fields of a crontab, like "30 18 * * fri", or @daily')
    for place, part in enumerate(parts):
        fields = ["*"] * len(_FIELDS)
        fields[place] = part
        try:
            CronSim(" ".join(fields), _SOME_TIME)
            problem = _doubtful(place, part)
        except CronSimError:
            problem = _hint(place, part)
        if problem is not None:
            field = _FIELDS[place]
            raise ValueError(f"{field.name} {part!r} is not understood{problem}; it may hold {field.allowed}")


def _doubtful(place: int, part: str) -> str | None:
    """Return why a field that cronsim takes is refused, or ``None``."""
    if not part.isascii():
        return ""
    for term in part.split(","):
        if "/" not in term:
            continue
        found = _STEP.fullmatch(term)
        if found is None or "l" in found["start"].casefold():
            return " (a step goes with a range)"
        if int(found["step"]) > _FIELDS[place].values:
            return " (the step is longer than the field)"
        # Elsewhere all crons that take "5/2" count to the field's end. Here some count Sunday as 0, some as 7, some as
        # both.
        if place == _WEEKDAY and "-" not in found["start"] and found["start"] != "*":
            return f" (write where it ends: {found['start']}-7/{found['step']})"
    return None


def _hint(place: int, part: str) -> str:
    if place != _WEEKDAY:
        return ""
    if found := re.fullmatch(r"([a-z]{3})L", part, re.IGNORECASE):
        day = found[1].casefold()
        return f" (write {_DAYS.index(day)}L)" if day in _DAYS else ""
    if found := re.fullmatch(r"(\w+)-sun", part, re.IGNORECASE):
        return f" (a range counts upwards, and Sunday at its end is 7: {found[1]}-7)"
    return ""
