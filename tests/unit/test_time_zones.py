"""A zone is understood as phones, browsers and Windows write it, or refused by its name."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from babel.core import get_global
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_worker.notation.time_zones import canonical

#: Ids of three letters that Java and Android have besides the places, and offsets as Android, iOS and browsers write
#: them.
SHORT = "ACT AET AGT ART AST BET BST CAT CNT CST CTT EAT ECT IET IST JST MIT NET NST PLT PNT PRT PST SST VST"
NO_ZONES = {"Factory", "localtime", "posixrules"}


@pytest.mark.parametrize("name", sorted(available_timezones() - NO_ZONES))
def test_every_name_of_the_tz_database_stays(name: str) -> None:
    assert canonical(name) == name
    assert canonical(name.lower()).casefold() == name.casefold()


@pytest.mark.parametrize(
    "name", sorted({*get_global("windows_zone_mapping"), *get_global("zone_aliases"), *SHORT.split()} - NO_ZONES)
)
def test_every_name_of_windows_icu_and_java_is_a_zone(name: str) -> None:
    ZoneInfo(canonical(name))


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        *(("GMT+03:00", 3), ("GMT+3", 3), ("UTC+3", 3), ("UTC+03:00", 3), ("GMT+0300", 3), ("+03:00", 3), ("Etc/GMT-3", 3)),
        *(("GMT-08:00", -8), ("UTC-8", -8), ("gmt-8", -8), ("GMT+05:30", 5.5), ("+0545", 5.75), ("GMT-09:30", -9.5)),
        *(("GMT", 0), ("UTC", 0), ("Z", 0), ("GMT+0", 0), ("UTC+00:00", 0), ("GMT0", 0), ("GMT+14:00", 14), ("GMT-12", -12)),
    ],
)  # fmt: skip
def test_an_offset_counts_eastwards(name: str, hours: float) -> None:
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(ZoneInfo(canonical(name))).utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("Pacific Standard Time", "America/Los_Angeles"),
        ("PST", "America/Los_Angeles"),
        ("right/Europe/Vienna", "Europe/Vienna"),
        ("SystemV/PST8PDT", "America/Los_Angeles"),
        ("asia/calcutta", "Asia/Calcutta"),
        (" Europe/Kyiv ", "Europe/Kyiv"),
        ("America/New York", "America/New_York"),
        ("GMT\N{MINUS SIGN}5", "Etc/GMT+5"),
        ("CEST", "Europe/Paris"),
        ("EDT", "America/New_York"),
        ("MSK", "Europe/Moscow"),
        ("KST", "Asia/Seoul"),
        ("NZDT", "Pacific/Auckland"),
    ],
)
def test_other_names(name: str, zone: str) -> None:
    assert canonical(name) == zone


@pytest.mark.parametrize(
    "name",
    ["Mars/Olympus", "Etc/Unknown", "", "GMT+15", "GMT-13", "GMT+3:7", "+99:99", "../x", "Factory", "Vienna", "PST-8"],
)
def test_what_is_no_zone_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone such as Europe/Vienna") as caught:
        canonical(name)
    assert repr(name) in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_a_zone_or_refused(text: str) -> None:
    with suppress(ValueError):
        ZoneInfo(canonical(text))
