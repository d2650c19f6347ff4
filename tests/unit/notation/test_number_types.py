"""The type of a number is the library's, for numbers of all countries."""

from __future__ import annotations

import random

import phonenumbers
import pytest
from phonenumbers import PhoneNumberType, ValidationResult

from knocktwice_worker.notation import number_types

#: Numbers of each country beside its examples: with its examples' beginnings, and of any digits.
_LIKE_EXAMPLES, _RANDOM = 12, 12
#: One question for us: whether it may be a mobile.
_EITHER = {PhoneNumberType.FIXED_LINE_OR_MOBILE: PhoneNumberType.MOBILE}
_TYPES = [t for t in PhoneNumberType.values() if t != PhoneNumberType.UNKNOWN]


def _examples(code: int, regions: tuple[str, ...]) -> set[str]:
    found = [phonenumbers.example_number_for_type(r, t) for r in regions for t in _TYPES if r.isalpha()]
    found.append(phonenumbers.example_number_for_non_geo_entity(code))
    return {phonenumbers.national_significant_number(one) for one in found if one is not None}


def _numbers(code: int, regions: tuple[str, ...]) -> set[str]:
    # The same in each run.
    choose = random.Random(code)

    def digits(n: int) -> str:
        return "".join(choose.choices("0123456789", k=n))

    examples = _examples(code, regions)
    beside = set()
    for example in sorted(examples):
        for _ in range(_LIKE_EXAMPLES):
            kept = choose.randint(1, len(example))
            beside.add(example[:kept] + digits(len(example) - kept))
        beside.add(example[:-1])
    return {n for n in examples | beside | {digits(choose.randint(4, 12)) for _ in range(_RANDOM)} if n and n[0] != "0"}


@pytest.mark.parametrize(
    "codes", [range(1, 40), range(40, 300), range(300, 600), range(600, 1000)], ids=lambda r: f"+{r.start}"
)
def test_the_type_is_the_librarys(codes: range) -> None:
    asked = seen = 0
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        if code not in codes:
            continue
        for national in _numbers(code, regions):
            number = phonenumbers.PhoneNumber(country_code=code, national_number=int(national))
            possible = phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE
            theirs = phonenumbers.number_type(number) if possible else PhoneNumberType.UNKNOWN
            ours = number_types.type_of(code, national)
            assert _EITHER.get(ours, ours) == _EITHER.get(theirs, theirs), (code, national)
            asked, seen = asked + 1, seen + (ours != PhoneNumberType.UNKNOWN)
    assert 0 < seen < asked
