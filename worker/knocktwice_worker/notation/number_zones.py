"""The time zones of phone numbers: where its owner may be, and where most owners of such numbers live."""

from __future__ import annotations

from functools import cache, lru_cache

import phonenumbers
from babel.core import get_global
from phonenumbers import timezone

from knocktwice_worker.notation.phone_numbers import country

#: Places of a few thousand people whose clocks must not hold up everybody with a number of their country.
_OUTLYING = frozenset(
    {
        "America/Adak",
        "America/Danmarkshavn",
        "America/Noronha",
        "America/Scoresbysund",
        "America/Thule",
        "Antarctica/Macquarie",
        "Antarctica/McMurdo",
        "Arctic/Longyearbyen",
        "Australia/Eucla",
        "Australia/Lord_Howe",
        "Indian/Christmas",
        "Indian/Cocos",
        "Pacific/Chatham",
        "Pacific/Easter",
        "Pacific/Enderbury",
        "Pacific/Galapagos",
        "Pacific/Gambier",
        "Pacific/Marquesas",
    }
)
#: Countries with several zones → these, the one with most people first.
_BY_PEOPLE = {
    "AR": ("America/Buenos_Aires",),
    "AU": ("Australia/Sydney", "Australia/Brisbane", "Australia/Perth", "Australia/Adelaide"),
    "BR": ("America/Sao_Paulo", "America/Fortaleza", "America/Bahia", "America/Manaus"),
    "CA": ("America/Toronto", "America/Vancouver", "America/Edmonton", "America/Winnipeg", "America/Halifax"),
    "CD": ("Africa/Kinshasa",),
    "CL": ("America/Santiago",),
    "CN": ("Asia/Shanghai",),
    "CY": ("Asia/Nicosia",),
    "DE": ("Europe/Berlin",),
    "EC": ("America/Guayaquil",),
    "ES": ("Europe/Madrid", "Atlantic/Canary"),
    "FM": ("Pacific/Truk", "Pacific/Ponape"),
    "GL": ("America/Godthab",),
    "ID": ("Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura"),
    "KI": ("Pacific/Tarawa",),
    "KZ": ("Asia/Almaty",),
    "MH": ("Pacific/Majuro",),
    "MN": ("Asia/Ulaanbaatar",),
    "MX": ("America/Mexico_City", "America/Tijuana", "America/Mazatlan", "America/Cancun"),
    "MY": ("Asia/Kuala_Lumpur",),
    "NZ": ("Pacific/Auckland",),
    "PF": ("Pacific/Tahiti",),
    "PG": ("Pacific/Port_Moresby",),
    "PS": ("Asia/Gaza",),
    "PT": ("Europe/Lisbon", "Atlantic/Madeira", "Atlantic/Azores"),
    "RU": ("Europe/Moscow", "Asia/Yekaterinburg", "Asia/Novosibirsk"),
    "UA": ("Europe/Kiev",),
    "US": ("America/New_York", "America/Chicago", "America/Los_Angeles", "America/Denver", "America/Phoenix"),
    "UZ": ("Asia/Tashkent",),
}


@lru_cache(maxsize=10_000)
def possible_zones(number: str) -> tuple[str, ...]:
    """Return the zones in which the owner of a number in E.164 may be, outlying islands apart; empty: nobody knows.

    A number with an area code has that area's zone. Another one has all zones of its own country, and not those of
    other countries with the same calling code.
    """
    region = country(number)
    if (only := _only_zone(region)) is not None:
        return (only,)
    if region is None:
        return ()
    parsed = phonenumbers.parse(number)
    names = _without_unknown(timezone.time_zones_for_number(parsed))
    names = names or _without_unknown(timezone.time_zones_for_geographical_number(parsed))
    own = tuple(name for name in names if _territory(name) == region) or names
    return tuple(name for name in own if name not in _OUTLYING) or own


@lru_cache(maxsize=10_000)
def home_zone(number: str) -> str | None:
    """Return the zone in which most people with such a number live; ``None``: nobody knows."""
    region = country(number)
    if region is None:
        return None
    if (only := _only_zone(region)) is not None:
        return only
    by_people = _BY_PEOPLE.get(region, ())
    area = _without_unknown(timezone.time_zones_for_geographical_number(phonenumbers.parse(number)))
    own = [name for name in area if _territory(name) == region]
    if not own:
        return by_people[0] if by_people else next(iter(possible_zones(number)), None)
    return min(own, key=lambda name: (by_people.index(name) if name in by_people else 99, name in _OUTLYING, name))


def _without_unknown(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != timezone.UNKNOWN_TIMEZONE)


def _territory(zone: str) -> str | None:
    found: str | None = get_global("zone_territories").get(get_global("zone_aliases").get(zone, zone))
    return found


@cache
def _zones_by_territory() -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for zone, territory in get_global("zone_territories").items():
        zones.setdefault(territory, []).append(zone)
    return zones


def _only_zone(region: str | None) -> str | None:
    own = _zones_by_territory().get(region or "", [])
    return own[0] if len(own) == 1 else None
