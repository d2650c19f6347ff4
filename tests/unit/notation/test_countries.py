"""Country codes, with a hint at the right one."""

from __future__ import annotations

import pytest

from knocktwice_worker.notation.countries import country_code


@pytest.mark.parametrize("code", ["GB", "US", "AT", "XK"])
def test_a_country_with_phone_numbers_is_taken(code: str) -> None:
    assert country_code(code) == code


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("UK", "GB"),
        ("uk", "GB"),
        ("EN", "GB"),
        ("EL", "GR"),
        ("de", "DE"),
        (" AT ", "AT"),
        ("USA", "US"),
        ("DEU", "DE"),
        ("GER", "DE"),
        ("England", "GB"),
        ("Germny", "DE"),
        ("Holland", "NL"),
        ("276", "DE"),
        ("SU", "RU"),
        ("JA", "JP"),
    ],
)
def test_another_code_gets_a_hint(code: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}") as caught:
        country_code(code)
    assert "is no country code (ISO 3166-1: two capitals, like DE)" in str(caught.value)


@pytest.mark.parametrize("code", ["ZZ", "XX", "", "*", "+49", "001"])
def test_what_is_nobodys_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="is no country code"):
        country_code(code)
