"""The time zones of numbers."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from knocktwice_worker.notation.number_zones import home_zone, possible_zones


@pytest.mark.parametrize(
    ("number", "home", "possible"),
    [
        ("+18765551234", "America/Jamaica", ["America/Jamaica"]),
        ("+16505550100", "America/Los_Angeles", ["America/Los_Angeles"]),
        ("+12125550100", "America/New_York", ["America/New_York"]),
        ("+447400123456", "Europe/London", ["Europe/London"]),
        ("+447624123456", "Europe/Isle_of_Man", ["Europe/Isle_of_Man"]),
        ("+353850123456", "Europe/Dublin", ["Europe/Dublin"]),
        (
            "+61412345678",
            "Australia/Sydney",
            ["Australia/Adelaide", "Australia/Brisbane", "Australia/Perth", "Australia/Sydney"],
        ),
        ("+64211234567", "Pacific/Auckland", ["Pacific/Auckland"]),
        ("+34612345678", "Europe/Madrid", ["Atlantic/Canary", "Europe/Madrid"]),
        ("+525512345678", "America/Mexico_City", ["America/Mexico_City"]),
        ("+526641234567", "America/Tijuana", ["America/Tijuana"]),
        ("+80012345678", None, []),
        ("+9991234567", None, []),
    ],
)
def test_a_number_has_a_home_and_places_where_its_owner_may_be(
    number: str, home: str | None, possible: list[str]
) -> None:
    assert home_zone(number) == home
    assert list(possible_zones(number)) == possible


def test_a_russian_mobile_may_be_anywhere_in_russia_and_lives_in_moscow() -> None:
    assert home_zone("+79161234567") == "Europe/Moscow"
    assert {"Europe/Moscow", "Asia/Kamchatka"} < set(possible_zones("+79161234567"))
    assert "Asia/Almaty" not in possible_zones("+79161234567")


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_every_country_has_zones_that_exist(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE) or phonenumbers.example_number(
        region
    )
    assert example is not None
    number = phonenumbers.format_number(example, PhoneNumberFormat.E164)
    home = home_zone(number)
    assert home is not None
    ZoneInfo(home)
    assert possible_zones(number)
    for zone in possible_zones(number):
        ZoneInfo(zone)
