"""The type of a number by its country's number plan: what ``phonenumbers.number_type`` says of numbers that are long enough
and not too long (``phonenumbers.is_possible_number``), in a fraction of its time.

The library looks through the plan twice where countries share a calling code, and asks for a landline before it asks for a
mobile, although the plan of landlines is the long one and most numbers are mobiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumberType

if TYPE_CHECKING:
    from phonenumbers.phonemetadata import PhoneNumberDesc

#: In the order in which the library asks; a number is what it is first.
_BEFORE_LANDLINES = (
    ("premium_rate", PhoneNumberType.PREMIUM_RATE),
    ("toll_free", PhoneNumberType.TOLL_FREE),
    ("shared_cost", PhoneNumberType.SHARED_COST),
    ("voip", PhoneNumberType.VOIP),
    ("personal_number", PhoneNumberType.PERSONAL_NUMBER),
    ("pager", PhoneNumberType.PAGER),
    ("uan", PhoneNumberType.UAN),
    ("voicemail", PhoneNumberType.VOICEMAIL),
)


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers that belong together.

    Attributes:
        lengths: how many digits they have; empty: any number.
        pattern: how they look.
    """

    lengths: frozenset[int]
    pattern: re.Pattern[str]

    def has(self, national: str) -> bool:
        return (not self.lengths or len(national) in self.lengths) and self.pattern.fullmatch(national) is not None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The number plan of one country.

    Attributes:
        leading: how its numbers begin, where that tells it from others of its calling code.
        general: all its numbers.
        special: the ranges that come before landlines and mobiles, each with its type.
        mobile, landline: the rest; ``None``: there is none. Where nobody can tell them apart they are the same.
    """

    leading: re.Pattern[str] | None
    general: _Range | None
    special: tuple[tuple[_Range, int], ...]
    mobile: _Range | None
    landline: _Range | None

    def type_of(self, national: str) -> int:
        if self.general is None or not self.general.has(national):
            return PhoneNumberType.UNKNOWN
        for special, of in self.special:
            if special.has(national):
                return of
        if self.mobile is not None and self.mobile.has(national):
            return PhoneNumberType.MOBILE
        if self.landline is not None and self.landline.has(national):
            return PhoneNumberType.FIXED_LINE
        return PhoneNumberType.UNKNOWN


def type_of(calling_code: int, national: str) -> int:
    """Return a number's ``PhoneNumberType``. What may be a landline or a mobile is called a mobile.

    Args:
        calling_code: the country code.
        national: the digits behind it, without any prefix that is dialled before them.
    """
    if len(national) not in _lengths(calling_code):
        return PhoneNumberType.UNKNOWN
    plans = _plans(calling_code)
    for plan in plans:
        if plan.leading is not None and len(plans) > 1:
            if plan.leading.match(national):
                return plan.type_of(national)
            continue
        found = plan.type_of(national)
        if found != PhoneNumberType.UNKNOWN:
            return found
    return PhoneNumberType.UNKNOWN


@cache
def _lengths(calling_code: int) -> frozenset[int]:
    """Return how many digits national numbers have, without those that are only dialled within a town."""
    region = phonenumbers.region_code_for_country_code(calling_code)
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(calling_code, region)
    described = metadata and metadata.general_desc
    return frozenset(described.possible_length if described else ())


@cache
def _plans(calling_code: int) -> tuple[_Plan, ...]:
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(calling_code, ())
    known = (PhoneMetadata.metadata_for_region_or_calling_code(calling_code, region) for region in regions)
    return tuple(_plan(metadata) for metadata in known if metadata is not None)


def _plan(metadata: PhoneMetadata) -> _Plan:
    special = ((_range(getattr(metadata, name)), of) for name, of in _BEFORE_LANDLINES)
    return _Plan(
        None if metadata.leading_digits is None else re.compile(metadata.leading_digits),
        _range(metadata.general_desc),
        tuple((found, of) for found, of in special if found is not None),
        _range(metadata.mobile),
        _range(metadata.fixed_line),
    )


def _range(described: PhoneNumberDesc | None) -> _Range | None:
    if described is None or not described.national_number_pattern:
        return None
    return _Range(frozenset(described.possible_length), re.compile(described.national_number_pattern))
