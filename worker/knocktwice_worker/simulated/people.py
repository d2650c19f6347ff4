"""Invented people: what each has and does is drawn from the seed, and is the same under every set of rules."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from phonenumbers import (
    PhoneNumberFormat,
    PhoneNumberType,
    example_number_for_type,
    format_number,
    is_valid_number,
    parse,
)

from knocktwice_shared.messages import ConsentSet, DeviceRegistered, OptOutSet, PhoneBound, Platform
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.simulated.file import DayFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from knocktwice_shared.messages import AudienceChange
    from knocktwice_worker.simulated.file import Day, People

_DAY = timedelta(days=1)
#: The last digits of a number, in which people of one country differ. Those from there on are side by side, for
#: pumping.
_DIGITS, _SIDE_BY_SIDE = 6, 900_000
#: Neighbours in the file are no neighbours in the country: coprime to the number of people's digits.
_APART = 314_159


def draws(*what: object) -> tuple[float, ...]:
    """Return eight numbers from 0 to 1 that depend on ``what`` alone."""
    digest = blake2b(repr(what).encode(), digest_size=64).digest()
    return tuple(n / 2**64 for n in struct.unpack("<8Q", digest))


@dataclass(frozen=True, slots=True)
class Person:
    """One of them.

    Attributes:
        id: the application's id.
        group: whom they are like.
        platform: of their device.
        shows: whether the phone shows notifications.
        told: whether the application knows that.
        removed: whether the app is gone.
        number: their phone number; ``None``: it is not known.
        landline: no SMS reaches it.
        consent, opted_out: what they have said about texts.
        ahead: how far their clock is ahead of UTC.
        whatsapp: whether WhatsApp reaches them.
        pumped: nobody is there: the number's operator shares the money with whoever asked for the text.
    """

    id: str
    group: People
    platform: Platform
    shows: bool
    told: bool
    removed: bool
    number: str | None
    landline: bool
    consent: bool
    opted_out: bool
    ahead: timedelta
    whatsapp: bool = False
    pumped: bool = False

    @property
    def registration(self) -> str:
        """The registration of their device."""
        return f"device-of-{self.id}"

    def said(self, at: datetime) -> Iterator[AudienceChange]:
        """Yield what the application has told of them."""
        enabled = False if self.told and not self.shows else None
        yield DeviceRegistered(
            self.id,
            self.registration,
            at,
            platform=self.platform,
            notifications_enabled=enabled,
            time_zone=self.group.zone,
        )
        if self.number is not None:
            yield PhoneBound(self.id, self.number, at)
            if self.consent:
                yield ConsentSet(self.id, True, "simulated", at)
            if self.opted_out:
                yield OptOutSet(self.number, True, "simulated", at)

    def looks(self, since: datetime, luck: float) -> datetime:
        """Return when they look at the phone next.

        Args:
            luck: from 0 to 1; half of all look within ``looks_after``.
        """
        wait = self.group.looks_after * (-math.log(max(1 - luck, 1e-9)) / math.log(2))
        awake = self._awake(since)
        return self._awake(awake + wait)

    def _awake(self, at: datetime) -> datetime:
        """Return a time, or when they wake up if they sleep then."""
        sleep = QuietHours.parse(self.group.sleeps)
        local = at + self.ahead
        clock = local.time()
        over_midnight = sleep.start > sleep.end
        if not sleep or not (
            (clock >= sleep.start or clock < sleep.end) if over_midnight else sleep.start <= clock < sleep.end
        ):
            return at
        day = local.date() + (_DAY if over_midnight and clock >= sleep.start else timedelta())
        return datetime.combine(day, sleep.end, tzinfo=at.tzinfo) - self.ahead


def invent(day: Day, seed: int) -> list[Person]:
    """Return the people of a day."""
    people: list[Person] = []
    of_countries: dict[str, Iterator[str]] = {}
    for place, group in enumerate(day.people):
        ahead = day.ahead(group)
        numbers = of_countries.setdefault(group.country, _numbers(group.country))
        for n in range(group.count):
            draw = draws(seed, "person", place, n)
            people.append(
                Person(
                    id=f"{place + 1}-{n + 1}",
                    group=group,
                    platform=_chosen(group.platforms, draw[0]),
                    shows=draw[1] < group.permission,
                    told=draw[2] < group.tells_permission,
                    removed=draw[3] < group.app_removed,
                    number=next(numbers) if draw[4] < group.phone else None,
                    landline=draw[5] < group.landline,
                    consent=draw[6] < group.consent,
                    opted_out=draw[7] < group.opted_out,
                    ahead=ahead,
                    whatsapp=draws(seed, "whatsapp", place, n)[0] < group.whatsapp,
                )
            )
    return people


def pumped(country: str, group: People, first: int, count: int) -> Iterator[Person]:
    """Yield numbers of a country that stand side by side, with nobody behind them.

    Args:
        group: what they are called.
        first: how many of them there were before.
    """
    head = _heads(country)[0]
    for n in range(first, first + count):
        number = f"{head}{_SIDE_BY_SIDE + n:0{_DIGITS}}"
        nobody = {
            "shows": False,
            "told": False,
            "removed": False,
            "landline": False,
            "consent": False,
            "opted_out": False,
        }
        platform = next(iter(group.platforms))
        yield Person(f"pumped-{number}", group, platform, number=number, ahead=timedelta(), pumped=True, **nobody)


def _chosen(shares: Mapping[Platform, float], luck: float) -> Platform:
    rest = luck * sum(shares.values())
    for platform, share in shares.items():
        rest -= share
        if rest < 0:
            return platform
    return list(shares)[-1]


def _numbers(country: str) -> Iterator[str]:
    """Yield numbers of a country that look like its example of a mobile number, far from each other."""
    heads = _heads(country)
    for n in range(len(heads) * _SIDE_BY_SIDE):
        yield f"{heads[n % len(heads)]}{n // len(heads) * _APART % _SIDE_BY_SIDE:0{_DIGITS}}"


def _heads(country: str) -> list[str]:
    """Return what mobile numbers of a country begin with, the usual one first."""
    known = example_number_for_type(country, PhoneNumberType.MOBILE)
    if known is None:
        known = example_number_for_type(country, PhoneNumberType.FIXED_LINE_OR_MOBILE)
    if known is None:
        raise DayFileError(f"people: country: no mobile number of {country} is known; choose another country")
    example = format_number(known, PhoneNumberFormat.E164)
    usual, rest = example[:-_DIGITS], example[-_DIGITS:]
    others = [f"{usual[:-1]}{digit}" for digit in range(10)]
    return [usual, *(head for head in others if head != usual and is_valid_number(parse(head + rest)))]
