"""Time zones as phones, browsers and people write them: ``GMT+03:00``, ``PST``, ``W. Europe Standard Time``."""

from __future__ import annotations

import re
from functools import lru_cache
from zoneinfo import available_timezones

from babel.core import get_global

_OFFSET = re.compile(r"(?:GMT|UTC|UT|Z)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)
#: Hours that the zones ``Etc/GMT…`` have, to the east and to the west.
_EAST, _WEST = 14, 12
#: Offsets with minutes, of which no zone consists; the place that has each.
_MINUTES = {
    "+03:30": "Asia/Tehran",
    "+04:30": "Asia/Kabul",
    "+05:30": "Asia/Kolkata",
    "+05:45": "Asia/Kathmandu",
    "+06:30": "Asia/Yangon",
    "+08:45": "Australia/Eucla",
    "+09:30": "Australia/Darwin",
    "+10:30": "Australia/Lord_Howe",
    "+12:45": "Pacific/Chatham",
    "-02:30": "America/St_Johns",
    "-03:30": "America/St_Johns",
    "-09:30": "Pacific/Marquesas",
}
#: Java's and Android's ids of three letters, as https://docs.oracle.com/javase/8/docs/api/java/time/ZoneId.html has
#: them, and what old releases of either wrote. EST, MST and HST are zones of the tz database.
_OLD = {
    "ACT": "Australia/Darwin",
    "AET": "Australia/Sydney",
    "AGT": "America/Argentina/Buenos_Aires",
    "ART": "Africa/Cairo",
    "AST": "America/Anchorage",
    "BET": "America/Sao_Paulo",
    "BST": "Asia/Dhaka",
    "CAT": "Africa/Harare",
    "CNT": "America/St_Johns",
    "CST": "America/Chicago",
    "CTT": "Asia/Shanghai",
    "EAT": "Africa/Addis_Ababa",
    "ECT": "Europe/Paris",
    "IET": "America/Indiana/Indianapolis",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "MIT": "Pacific/Apia",
    "NET": "Asia/Yerevan",
    "NST": "Pacific/Auckland",
    "PLT": "Asia/Karachi",
    "PNT": "America/Phoenix",
    "PRT": "America/Puerto_Rico",
    "PST": "America/Los_Angeles",
    "SST": "Pacific/Guadalcanal",
    "VST": "Asia/Ho_Chi_Minh",
    "SystemV/AST4": "America/Puerto_Rico",
    "SystemV/AST4ADT": "America/Halifax",
    "SystemV/CST6": "America/Regina",
    "SystemV/CST6CDT": "America/Chicago",
    "SystemV/EST5": "America/Panama",
    "SystemV/EST5EDT": "America/New_York",
    "SystemV/HST10": "Pacific/Honolulu",
    "SystemV/MST7": "America/Phoenix",
    "SystemV/MST7MDT": "America/Denver",
    "SystemV/PST8": "Pacific/Pitcairn",
    "SystemV/PST8PDT": "America/Los_Angeles",
    "SystemV/YST9": "Pacific/Gambier",
    "SystemV/YST9YDT": "America/Anchorage",
    "US/Pacific-New": "America/Los_Angeles",
    "Asia/Hanoi": "Asia/Bangkok",
    "Canada/East-Saskatchewan": "America/Regina",
    "Z": "UTC",
    "UT": "UTC",
}
#: What ``TimeZone.abbreviation()`` of iOS and macOS says; Java's come first where both have one.
_APPLE = {
    "ADT": "America/Halifax",
    "AEDT": "Australia/Sydney",
    "AEST": "Australia/Sydney",
    "AKDT": "America/Juneau",
    "AKST": "America/Juneau",
    "BDT": "Asia/Dhaka",
    "BRST": "America/Sao_Paulo",
    "BRT": "America/Sao_Paulo",
    "CDT": "America/Chicago",
    "CEST": "Europe/Paris",
    "CLST": "America/Santiago",
    "CLT": "America/Santiago",
    "COT": "America/Bogota",
    "EDT": "America/New_York",
    "EEST": "Europe/Athens",
    "GST": "Asia/Dubai",
    "HKT": "Asia/Hong_Kong",
    "ICT": "Asia/Bangkok",
    "IRST": "Asia/Tehran",
    "KST": "Asia/Seoul",
    "MDT": "America/Denver",
    "MSD": "Europe/Moscow",
    "MSK": "Europe/Moscow",
    "NDT": "America/St_Johns",
    "NZDT": "Pacific/Auckland",
    "NZST": "Pacific/Auckland",
    "PDT": "America/Los_Angeles",
    "PET": "America/Lima",
    "PHT": "Asia/Manila",
    "PKT": "Asia/Karachi",
    "SGT": "Asia/Singapore",
    "TRT": "Europe/Istanbul",
    "WAST": "Africa/Lagos",
    "WAT": "Africa/Lagos",
    "WEST": "Europe/Lisbon",
    "WIB": "Asia/Jakarta",
}
#: Files of the tz database that are no places.
_NO_ZONES = frozenset({"Factory", "localtime", "posixrules"})


def canonical(name: str) -> str:
    """Return the name by which :class:`zoneinfo.ZoneInfo` knows a zone; deprecated names stay as they are.

    Raises:
        ValueError: nobody calls a zone so. The message names it.
    """
    found = _found(name.strip())
    if found is None:
        raise ValueError(f"{name[:64]!r} is not a time zone such as Europe/Vienna or GMT+03:00")
    return found


@lru_cache(maxsize=10_000)
def _found(name: str) -> str | None:
    # A true minus sign, as JavaScript's Intl writes it.
    plain = re.sub(r"^(?:posix|right)/", "", name).replace("\N{MINUS SIGN}", "-")
    return _names().get(plain.casefold()) or _names().get(plain.casefold().replace(" ", "_")) or _fixed(plain)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    there = available_timezones() - _NO_ZONES
    others = {**get_global("windows_zone_mapping"), **get_global("zone_aliases"), **_APPLE, **_OLD}
    known = {name: zone for name, zone in others.items() if zone in there}
    return {name.casefold(): zone for name, zone in (known | {name: name for name in there}).items()}


def _fixed(name: str) -> str | None:
    found = _OFFSET.fullmatch(name)
    if found is None:
        return None
    sign, hours, minutes = found[1], int(found[2]), int(found[3] or 0)
    if minutes:
        return _MINUTES.get(f"{sign}{hours:02}:{minutes:02}")
    if not hours:
        return "Etc/GMT"
    # POSIX counts them westwards: Etc/GMT-3 is three hours east of Greenwich.
    if hours <= (_EAST if sign == "+" else _WEST):
        return f"Etc/GMT{'-' if sign == '+' else '+'}{hours}"
    return None
