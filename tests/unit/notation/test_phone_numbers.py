"""Phone numbers by the number plans of all countries, with the plans' own examples."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType

from knocktwice_shared.messages import phone_text
from knocktwice_worker.notation import phone_numbers
from knocktwice_worker.notation.phone_numbers import (
    Kind,
    Plan,
    Rules,
    UnusableNumber,
    canonical,
    country,
    refusal,
    spelled,
    spellings,
)

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
WORLD = sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS)
E164, ABROAD, AT_HOME, URI = (
    PhoneNumberFormat.E164,
    PhoneNumberFormat.INTERNATIONAL,
    PhoneNumberFormat.NATIONAL,
    PhoneNumberFormat.RFC3966,
)
RULES = Rules()
NOT_TEXTED = {
    PhoneNumberType.PREMIUM_RATE: "premium",
    PhoneNumberType.SHARED_COST: "shared_cost",
    PhoneNumberType.PAGER: "pager",
    PhoneNumberType.VOICEMAIL: "voicemail",
}


def examples(kind: int) -> list[tuple[str, PhoneNumber]]:
    """Return the number plans' own examples, by region."""
    found = [(region, phonenumbers.example_number_for_type(region, kind)) for region in REGIONS]
    return [(region, example) for region, example in found if example is not None]


def refused(number: object, rules: Rules = RULES) -> str:
    with pytest.raises(UnusableNumber) as caught:
        canonical(number, rules)
    return caught.value.reason


@pytest.mark.parametrize(("region", "example"), examples(PhoneNumberType.MOBILE))
def test_every_valid_mobile_is_taken_however_it_is_written(region: str, example: PhoneNumber) -> None:
    number = phonenumbers.format_number(example, E164)
    for style in (E164, ABROAD, URI):
        assert canonical(phonenumbers.format_number(example, style), RULES) == number
    assert canonical("00" + number[1:], RULES) == number
    assert canonical(phonenumbers.format_number(example, AT_HOME), Rules(region)) == number
    assert canonical(number[1:], Rules(region)) == number
    for other in ("US", "DE", "AU", "BR"):
        assert canonical(phonenumbers.format_number(example, ABROAD), Rules(other)) == number


@pytest.mark.parametrize("region", REGIONS)
def test_every_invalid_number_is_refused(region: str) -> None:
    example = phonenumbers.invalid_example_number(region)
    assert example is not None
    assert refused(phonenumbers.format_number(example, E164)) in ("impossible", "not_assigned", "not_a_number")
    refused(phonenumbers.format_number(example, AT_HOME), Rules(region))


@pytest.mark.parametrize(
    ("reason", "example"),
    [(reason, example) for kind, reason in NOT_TEXTED.items() for _, example in examples(kind)],
)
def test_every_number_of_a_kind_that_is_not_texted_is_refused(reason: str, example: PhoneNumber) -> None:
    number = phonenumbers.format_number(example, E164)
    assert refused(number) == reason
    assert refused(number, Rules(plan=Plan.POSSIBLE)) == reason
    assert canonical(number, Rules(kinds=frozenset(Kind))) == number


@pytest.mark.parametrize("code", WORLD)
def test_numbers_of_satellites_and_international_networks_are_refused(code: int) -> None:
    example = phonenumbers.example_number_for_non_geo_entity(code)
    assert example is not None
    number = phonenumbers.format_number(example, E164)
    if code in (870, 878, 881, 882, 883):
        assert refused(number) == "satellite"
    assert canonical(number, Rules(kinds=frozenset(Kind))) == number
    assert country(number) is None


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        ("+10000000000", "not_assigned", "is not assigned in the number plan of +1"),
        ("+9991234567", "impossible", "a country code that no country has"),
        ("+1650555", "impossible", "is too short for a number of +1"),
        ("+3312345678901", "impossible", "is too long for a number of +33"),
        ("+43900123456", "premium", "is a premium-rate number"),
        ("+19005550100", "premium", "is a premium-rate number"),
        ("+870773111632", "satellite", "satellite"),
        ("07400 123456", "no_country_code", "KNOCKTWICE_DEFAULT_REGION"),
        ("7400", "no_country_code", "has no country code"),
        ("+44 7400 1234 ext 5", "not_a_number", "has an extension"),
    ],
)
def test_a_refusal_says_why(number: str, reason: str, words: str) -> None:
    with pytest.raises(UnusableNumber) as caught:
        canonical(number, RULES)
    assert caught.value.reason == reason
    assert words in str(caught.value)


def test_a_setting_takes_ranges_that_are_newer_than_the_plan() -> None:
    assert refused("+10000000000") == "not_assigned"
    assert canonical("+10000000000", Rules(plan=Plan.POSSIBLE)) == "+10000000000"
    assert refused("+1650555", Rules(plan=Plan.POSSIBLE)) == "impossible"


@pytest.mark.parametrize(
    ("written", "one"),
    [
        ("+44 (0) 7400 123456", "+447400123456"),
        ("+4407400123456", "+447400123456"),
        ("+7 8 916 123 45 67", "+79161234567"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+525512345678", "+525512345678"),
        ("+54 11 2345 6789", "+5491123456789"),
        ("+54 9 11 2345 6789", "+5491123456789"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        ("+55 11 8765 4321", "+5511987654321"),
        ("+55 11 98765 4321", "+5511987654321"),
        ("+229 90 01 12 34", "+2290190011234"),
        # Landlines of the same countries stay as they are.
        ("+551123456789", "+551123456789"),
        ("+390655512345", "+390655512345"),
    ],
)
def test_two_spellings_of_a_phone_are_one(written: str, one: str) -> None:
    assert canonical(written, RULES) == one
    assert spelled(phone_text.read(written).international or "") == one
    assert spelled(one) == one
    assert one == spellings(one)[0]


@pytest.mark.parametrize(
    ("one", "older"),
    [
        ("+525512345678", "+5215512345678"),
        ("+5491123456789", "+541123456789"),
        ("+5511987654321", "+551187654321"),
        ("+2290190011234", "+22990011234"),
        ("+447400123456", "+4407400123456"),
    ],
)
def test_what_was_kept_under_an_older_spelling_is_found(one: str, older: str) -> None:
    assert older in spellings(one)
    assert one in spellings(older)


@pytest.mark.parametrize(
    ("written", "region", "number"),
    [
        ("0151/23456789", "DE", "+4915123456789"),
        ("151 23456789", "DE", "+4915123456789"),
        # Without its plus: in Germany 04915… is a place, too, but nobody leaves out the 0.
        ("4915123456789", "DE", "+4915123456789"),
        ("00 44 7400 123456", "DE", "+447400123456"),
        ("011 44 7400 123456", "US", "+447400123456"),
        ("00 44 7400 123456", "US", "+447400123456"),
        ("0011 44 7400 123456", "AU", "+447400123456"),
        ("(650) 555-0100", "US", "+16505550100"),
        ("1-650-555-0100", "US", "+16505550100"),
        ("011 15 2345 6789", "AR", "+5491123456789"),
        ("(11) 8765-4321", "BR", "+5511987654321"),
        ("8 (916) 123-45-67", "RU", "+79161234567"),
        ("+44 7400 123456", "DE", "+447400123456"),
    ],
)
def test_a_default_region_reads_what_is_dialled_there(written: str, region: str, number: str) -> None:
    assert canonical(written, Rules(region)) == number


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_a_number_in_its_one_spelling_keeps_it(number: str) -> None:
    one = spelled(number)
    assert spelled(one) == one
    assert one in spellings(number)
    if refusal(one, RULES) is None:
        assert canonical(number, RULES) == one == canonical(one, RULES)


_CODES = sorted(map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE))
_DIGITS = st.text("0123456789", min_size=1, max_size=14)


@given(code=st.sampled_from(_CODES) | st.from_regex(r"[0-9]{1,3}", fullmatch=True), rest=_DIGITS)
def test_digits_are_read_as_the_library_reads_them(code: str, rest: str) -> None:
    number = f"+{code}{rest}"
    try:
        expected = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        expected = None
    # As text, too: equal numbers may differ in their leading zeros.
    assert repr(phone_numbers._parsed(number)) == repr(expected)
    assert phone_numbers._parsed(number) == expected
