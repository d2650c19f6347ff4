"""Country codes as settings and files name them (ISO 3166-1), with a hint at the right one."""

from __future__ import annotations

import difflib

from babel import Locale
from babel.core import get_global
from phonenumbers import SUPPORTED_REGIONS

#: What people write for a country whose code is another: languages, internet domains, car plates, former codes.
_MEANT = {
    "EN": "GB",
    "UK": "GB",
    "EL": "GR",
    "JA": "JP",
    "KO": "KR",
    "ZH": "CN",
    "HI": "IN",
    "CS": "CZ",
    "DA": "DK",
    "SV": "SE",
    "ENG": "GB",
    "SUI": "CH",
    "GER": "DE",
    "HOL": "NL",
    "POR": "PT",
    "DEN": "DK",
    "GRE": "GR",
    "CRO": "HR",
    "UAE": "AE",
    "KSA": "SA",
}
_NAMES = {"holland": "NL", "england": "GB", "scotland": "GB", "wales": "GB", "great britain": "GB", "america": "US"}


def country_code(value: str) -> str:
    """Return the code of a country that has phone numbers, as two capitals.

    Raises:
        ValueError: there is no such country. The message names the likely one.
    """
    if value in SUPPORTED_REGIONS:
        return value
    meant = _nearest(value.strip())
    hint = f"; did you mean {meant}?" if meant else ""
    raise ValueError(f"{value[:40]!r} is no country code (ISO 3166-1: two capitals, like DE){hint}")


def _nearest(said: str) -> str | None:
    code = said.upper()
    aliases: list[str] = get_global("territory_aliases").get(code, [])
    for meant in (code, _MEANT.get(code, ""), *aliases):
        if meant in SUPPORTED_REGIONS:
            return meant
    if len(said) <= 3:
        return None
    names = {name.casefold(): region for region, name in Locale("en").territories.items()} | _NAMES
    near = difflib.get_close_matches(said.casefold(), names, cutoff=0.75)
    return next((names[name] for name in near if names[name] in SUPPORTED_REGIONS), None)
