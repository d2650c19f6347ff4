"""Quiet hours: at what time of the recipient's own day marketing is not texted. Pure; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import phonenumbers
from phonenumbers import timezone

from knocktwice_worker.notation import time_zones

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A span of the day, by the clock on the wall; it may go over midnight. ``start == end`` is no hour at all."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read ``21:00-08:00``; an empty text means never.

        Raises:
            ValueError: it is not that.
        """
        if not text.strip():
            return cls(time(), time())
        start, _, end = text.partition("-")
        return cls(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))

    def end_of(self, now: datetime, zones: Iterable[ZoneInfo]) -> datetime | None:
        """Return when it is quiet in none of the zones any more, or ``None`` if that is now.

        Args:
            now: aware.
            zones: where the recipient may be.
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
        # An end that the clocks skip in spring is over as soon as they have. One that comes twice in autumn ends it
        # twice.
        ends = (datetime.combine(day, self.end, tzinfo=local.tzinfo).replace(fold=fold) for fold in (0, 1))
        return next(end for end in map(_utc, ends) if end > _utc(local))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


@lru_cache(maxsize=10_000)
def country(number: str) -> str | None:
    """Return the ISO code of a number's country, or ``None`` if it belongs to none."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None


def zones_of(number: str, stated: str | None, default: str) -> list[ZoneInfo]:
    """Return where the owner of a number may be.

    Args:
        number: E.164.
        stated: the zone that a device of theirs has reported; it counts alone.
        default: the zone of those about whom nothing is known.
    """
    for names in ((stated,), _zones_of_number(number)):
        known = [zone for name in names if name and (zone := _zone(name))]
        if known:
            return known
    return [ZoneInfo(default)]


@lru_cache(maxsize=10_000)
def _zones_of_number(number: str) -> tuple[str, ...]:
    try:
        names = timezone.time_zones_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return ()
    return tuple(name for name in names if name != timezone.UNKNOWN_TIMEZONE)


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo | None:
    # Other releases stored what devices report as it is.
    try:
        return ZoneInfo(time_zones.canonical(name))
    except ValueError:
        return None
