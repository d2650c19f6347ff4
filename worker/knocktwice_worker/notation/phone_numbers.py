"""Phone numbers in their one spelling, judged by the number plans of all countries.

Every door of the worker and the gateway takes numbers through :func:`canonical`, so that one phone has one spelling
wherever an opt-out or a limit is asked. Some phones have two spellings in E.164, and both are dialled: Mexico's
``+52 1`` and ``+52``, Argentina's ``+54 9`` and ``+54``, Brazilian mobiles with eight digits and with nine. The
spelling that the number plan calls a valid mobile number is kept; :func:`spellings` returns the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumberFormat, PhoneNumberType, ValidationResult

from knocktwice_shared.messages import phone_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phonenumbers import PhoneNumber


class Plan(StrEnum):
    """How strictly numbers are judged."""

    #: The number plan of the installed ``phonenumbers`` has assigned the number's range.
    VALID = "valid"
    #: The number has a length that its country uses; for ranges that are newer than the installed plan.
    POSSIBLE = "possible"


class Kind(StrEnum):
    """The kind of a number, by its range."""

    MOBILE = "mobile"
    #: Some countries deliver SMS to landlines; the memory of untextable numbers learns which do not.
    FIXED_LINE = "fixed_line"
    VOIP = "voip"
    PERSONAL = "personal"
    TOLL_FREE = "toll_free"
    #: A company's number that is the same everywhere in a country.
    COMPANY = "company"
    PREMIUM = "premium"
    SHARED_COST = "shared_cost"
    PAGER = "pager"
    VOICEMAIL = "voicemail"
    #: Satellite phones and international networks (+870, +878, +881, +882, +883).
    SATELLITE = "satellite"


#: Kinds whose numbers a person may be texted at, without a setting.
USUAL = frozenset(Kind) - {Kind.PREMIUM, Kind.SHARED_COST, Kind.PAGER, Kind.VOICEMAIL, Kind.SATELLITE}

_KINDS = {
    PhoneNumberType.MOBILE: Kind.MOBILE,
    PhoneNumberType.FIXED_LINE: Kind.FIXED_LINE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE: Kind.MOBILE,
    PhoneNumberType.VOIP: Kind.VOIP,
    PhoneNumberType.PERSONAL_NUMBER: Kind.PERSONAL,
    PhoneNumberType.TOLL_FREE: Kind.TOLL_FREE,
    PhoneNumberType.UAN: Kind.COMPANY,
    PhoneNumberType.PREMIUM_RATE: Kind.PREMIUM,
    PhoneNumberType.SHARED_COST: Kind.SHARED_COST,
    PhoneNumberType.PAGER: Kind.PAGER,
    PhoneNumberType.VOICEMAIL: Kind.VOICEMAIL,
}
_SATELLITE = {870, 878, 881, 882, 883}
_WHAT = {
    Kind.PREMIUM: "is a premium-rate number",
    Kind.SHARED_COST: "is a shared-cost service number",
    Kind.PAGER: "is a pager's number",
    Kind.VOICEMAIL: "is a voicemail access number",
    Kind.SATELLITE: "is a number of a satellite or international network",
}

#: Second spellings: how a number begins → its spelling in the present number plan, used where that is a valid number.
_RESPELL = (
    # Mexico dropped the 1 of mobiles in 2019, Brazil gave all mobiles a ninth digit by 2016, Benin all numbers 01 in
    # 2024.
    (re.compile(r"\+521(\d{10})"), r"+52\1"),
    (re.compile(r"\+54(?!9)(\d{10})"), r"+549\1"),
    (re.compile(r"\+55(\d\d)([6-9]\d{7})"), r"+55\g<1>9\2"),
    (re.compile(r"\+229(\d{8})"), r"+22901\1"),
)
#: The other way round.
_OLDER = (
    (re.compile(r"\+52(\d{10})"), r"+521\1"),
    (re.compile(r"\+549(\d{10})"), r"+54\1"),
    (re.compile(r"\+55(\d\d)9([6-9]\d{7})"), r"+55\1\2"),
    (re.compile(r"\+22901(\d{8})"), r"+229\1"),
)
#: Digits alone, and so many that neither a country code nor a national number is cut off.
_PLAIN = re.compile(r"\+[1-9][0-9]{6,14}")
_RESPELLED = re.compile(r"\+(?:521|54(?!9)|55\d\d[6-9]\d{7}$|229\d{8}$)")


class UnusableNumber(ValueError):
    """A number that nobody can be texted at. The message says why and what to do; it does not quote the number.

    Args:
        reason: one word for ledgers: ``not_a_number``, ``no_country_code``, ``impossible``, ``not_assigned``, or the
            kind that is not allowed.
        problem: the sentence.
    """

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for numbers.

    Attributes:
        region: ISO code of the country of numbers that are written without a country code; ``None``: they are refused.
        plan: how strictly they are judged.
        kinds: the kinds that may be texted.
    """

    region: str | None = None
    plan: Plan = Plan.VALID
    kinds: frozenset[Kind] = USUAL

    @property
    def of_anyone(self) -> Rules:
        """The rules for numbers that are looked up or put on a list: also those that would never be texted."""
        return replace(self, plan=Plan.POSSIBLE, kinds=frozenset(Kind))


def canonical(value: object, rules: Rules) -> str:
    """Return a number in E.164, in its one spelling.

    Args:
        value: the number as somebody wrote it.

    Raises:
        UnusableNumber: it is none, or none that may be texted.
    """
    try:
        written = phone_text.read(value)
    except ValueError as error:
        raise UnusableNumber("not_a_number", str(error)) from None
    number = written.international if rules.region is None or not written.idd else None
    if number is None and rules.region is not None:
        number = _national(written.digits, rules.region)
    number = number or written.international
    if number is None:
        raise UnusableNumber(
            "no_country_code",
            f"has no country code; write + and the country code before it, like {phone_text.EXAMPLE}"
            + ("" if rules.region else ", or set KNOCKTWICE_DEFAULT_REGION for numbers of one country"),
        )
    number = spelled(number)
    if (refused := refusal(number, rules)) is not None:
        raise UnusableNumber(*refused)
    return number


def _national(digits: str, region: str) -> str | None:
    """Return what somebody dials in a country, in E.164; ``None``: nobody is called by that there."""
    try:
        parsed = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None
    # Dialled with 00 where another prefix goes abroad, it is no national number.
    if digits.startswith("00") and not phonenumbers.is_valid_number(parsed):
        return None
    metadata = PhoneMetadata.metadata_for_region(region)
    trunk = metadata and metadata.national_prefix
    if trunk and not digits.startswith(trunk) and digits.startswith(str(parsed.country_code)):
        # Nobody leaves the trunk prefix out, but many leave out the plus: 49151… in Germany is +49 151….
        abroad = _parsed("+" + digits)
        if abroad is not None and phonenumbers.is_valid_number(abroad):
            parsed = abroad
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)


def spelled(number: str) -> str:
    """Return a number in E.164 in its one spelling, without judging it. Costs little for all but a few.

    Besides second spellings it removes a trunk prefix behind the country code (``+44 07400…``), which people write and
    no network dials.
    """
    if not _RESPELLED.match(number) and not _has_trunk_prefix(number):
        return number
    return _spelled(number)


@lru_cache(maxsize=20_000)
def _spelled(number: str) -> str:
    for pattern, replacement in _RESPELL:
        if pattern.fullmatch(number) and _is_mobile(candidate := pattern.sub(replacement, number)):
            return candidate
    parsed = _parsed(number)
    if parsed is None or not phonenumbers.is_valid_number(parsed):
        return number
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)


def _is_mobile(number: str) -> bool:
    parsed = _parsed(number)
    if parsed is None:
        return False
    kind = phonenumbers.number_type(parsed)
    return kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


def spellings(number: str) -> tuple[str, ...]:
    """Return all spellings of a number: its one spelling first, then those under which it may have been kept."""
    first = spelled(number)
    older = [pattern.sub(replacement, first) for pattern, replacement in _OLDER if pattern.fullmatch(first)]
    code = _calling_code(first)
    trunk = [f"+{code}0{first[1 + len(code) :]}"] if code and len(first) < 16 else []
    return tuple(dict.fromkeys((first, number, *older, *trunk)))


@lru_cache(maxsize=20_000)
def refusal(number: str, rules: Rules) -> tuple[str, str] | None:
    """Return why a number in E.164 is not texted, as one word and as a sentence; ``None``: it may be."""
    parsed = _parsed(number)
    if parsed is None:
        return "impossible", "begins with a country code that no country has"
    length = phonenumbers.is_possible_number_with_reason(parsed)
    if length not in (ValidationResult.IS_POSSIBLE, ValidationResult.IS_POSSIBLE_LOCAL_ONLY):
        return "impossible", _LENGTHS.get(length, "has no length that its country uses").format(
            code=parsed.country_code
        )
    if length == ValidationResult.IS_POSSIBLE_LOCAL_ONLY:
        return "impossible", f"is too short for +{parsed.country_code}; its area code is missing"
    if parsed.country_code in _SATELLITE and Kind.SATELLITE not in rules.kinds:
        return _not_allowed(Kind.SATELLITE)
    kind = _KINDS.get(phonenumbers.number_type(parsed))
    if kind is None and rules.plan is Plan.VALID:
        return "not_assigned", (
            f"is not assigned in the number plan of +{parsed.country_code}; check its digits. "
            "KNOCKTWICE_NUMBERS=possible takes numbers of ranges that are too new for it"
        )
    return _not_allowed(kind) if kind is not None and kind not in rules.kinds else None


_LENGTHS = {
    ValidationResult.TOO_SHORT: "is too short for a number of +{code}",
    ValidationResult.TOO_LONG: "is too long for a number of +{code}",
    ValidationResult.INVALID_COUNTRY_CODE: "begins with a country code that no country has",
}


def _not_allowed(kind: Kind) -> tuple[str, str]:
    what = _WHAT.get(kind, f"is a {kind.replace('_', ' ')} number")
    return kind.value, f"{what}, which is not texted; KNOCKTWICE_NUMBER_KINDS allows more kinds"


@lru_cache(maxsize=10_000)
def country(number: str) -> str | None:
    """Return the ISO code of a number's country; ``None``: the number belongs to no country, or to nobody."""
    parsed = _parsed(number)
    found = parsed and phonenumbers.region_code_for_number(parsed)
    # "001" stands for numbers of the whole world.
    return found if found and found.isalpha() else None


def _parsed(number: str) -> PhoneNumber | None:
    """Return a number in E.164 as ``phonenumbers.parse`` reads it; ``None``: it is none.

    The parser looks for extensions, foreign digits and prefixes for calls abroad, which takes most of the time of a
    judgement. Nothing of that can stand in digits behind a country code without a trunk prefix, so there it is not
    asked.
    """
    code = _calling_code(number)
    if code and _PLAIN.fullmatch(number) and number[1 + len(code)] != "0" and not _has_trunk_prefix(number):
        return phonenumbers.PhoneNumber(country_code=int(code), national_number=int(number[1 + len(code) :]))
    try:
        return phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None


def _calling_code(number: str) -> str:
    """Return the country code of a number in E.164; empty: it begins with none. No code is the beginning of another."""
    codes = _calling_codes()
    return next((code for code in (number[1:2], number[1:3], number[1:4]) if code in codes), "")


@cache
def _calling_codes() -> frozenset[str]:
    return frozenset(map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE))


def _has_trunk_prefix(number: str) -> bool:
    code = _calling_code(number)
    prefix = _trunk_prefixes().get(code)
    return prefix is not None and prefix.match(number, 1 + len(code)) is not None


@cache
def _trunk_prefixes() -> dict[str, re.Pattern[str]]:
    """Return calling code → what may stand before a national number there."""
    return dict(_each_trunk_prefix())


def _each_trunk_prefix() -> Iterator[tuple[str, re.Pattern[str]]]:
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, regions[0])
        if metadata is not None and metadata.national_prefix_for_parsing:
            yield str(code), re.compile(metadata.national_prefix_for_parsing)
