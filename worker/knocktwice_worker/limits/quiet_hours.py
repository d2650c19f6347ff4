"""Quiet hours: the part of the recipient's local day in which no marketing SMS goes out. Pure; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from knocktwice_worker.notation import time_zones
from knocktwice_worker.notation.number_zones import home_zone, possible_zones

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A span of the day in local time. It may include midnight. ``start == end`` means no quiet hours.

    Attributes:
        start: the local time at which the quiet hours begin.
        end: the local time at which they end.
    """

    start: time
    end: time

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.start != self.end

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read a text such as ``21:00-08:00``. An empty text means no quiet hours.

        Raises:
            ValueError: the text has another form.
        """
        if not text.strip():
            return cls(time(), time())
        start, _, end = text.partition("-")
        return cls(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))

    def end_of(self, now: datetime, zones: Iterable[ZoneInfo]) -> datetime | None:
        """Return the moment from which no zone has quiet hours, or ``None`` if no zone has them now.

        Args:
            now: an aware moment.
            zones: the time zones in which the recipient may be.
        """
        ends = [end for zone in zones if (end := self._end(now.astimezone(zone)))]
        return max(ends, default=None)

    def _end(self, local: datetime) -> datetime | None:
        clock = local.time()
        over_midnight = self.start > self.end
        quiet = (clock >= self.start or clock < self.end) if over_midnight else self.start <= clock < self.end
        if not quiet:
            return None
        day = local.date() + timedelta(days=1) if over_midnight and clock >= self.start else local.date()
        # If the clocks skip the end in spring, the quiet hours end at the change. If the end occurs twice in autumn,
        # the quiet hours end at each of the two: the next one after now counts.
        ends = (datetime.combine(day, self.end, tzinfo=local.tzinfo).replace(fold=fold) for fold in (0, 1))
        return next(end for end in map(_utc, ends) if end > _utc(local))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def zones_of(number: str, stated: str | None, default: str) -> list[ZoneInfo]:
    """Return the time zones in which the owner of a number may be.

    Args:
        number: the number in E.164.
        stated: the zone that one of the owner's devices has reported. If there is one, only it counts.
        default: the zone to assume if neither a device nor the number tells one.
    """
    for names in ((stated,), possible_zones(number)):
        known = [zone for name in names if name and (zone := _zone(name))]
        if known:
            return known
    return [ZoneInfo(default)]


def home_of(number: str, stated: str | None, default: str) -> ZoneInfo:
    """Return the one time zone by whose clock something is sent to the owner of a number.

    Args:
        number: the number in E.164; empty: there is none.
        stated: the zone that one of the owner's devices has reported.
        default: the zone to assume if neither a device nor the number tells one.
    """
    known = (zone for name in (stated, home_zone(number) if number else None) if name and (zone := _zone(name)))
    return next(known, None) or ZoneInfo(default)


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo | None:
    # Earlier releases stored the devices' zones unchecked, so the name may be invalid.
    try:
        return ZoneInfo(time_zones.canonical(name))
    except ValueError:
        return None
