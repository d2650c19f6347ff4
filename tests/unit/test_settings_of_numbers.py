"""Settings about numbers, senders and countries say what is wrong and what to write."""

from __future__ import annotations

import pytest

from knocktwice_worker import config
from knocktwice_worker.config import ConfigurationError
from knocktwice_worker.notation.phone_numbers import USUAL, Kind, Plan


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("KNOCKTWICE_SMS_COUNTRIES", '["UK"]', "did you mean GB?"),
        ("KNOCKTWICE_SMS_COUNTRIES", '["DE", "ZZ"]', "'ZZ' is no country code"),
        ("KNOCKTWICE_SMS_PRICES", '{"UK": 0.05}', "did you mean GB?"),
        ("KNOCKTWICE_WHATSAPP_PRICES", '{"usa": 0.05}', "did you mean US?"),
        ("KNOCKTWICE_DEFAULT_REGION", "Germany", "did you mean DE?"),
        ("KNOCKTWICE_NUMBERS", "all", "'valid' or 'possible'"),
        ("KNOCKTWICE_NUMBER_KINDS", '["fax"]', "'mobile'"),
        ("KNOCKTWICE_TWILIO_FROM", "MyVeryLongCompanyName", "is a name of 21 characters, and networks take 11"),
        ("KNOCKTWICE_TWILIO_FROM", "15005550006", "is a number without its country code"),
        ("KNOCKTWICE_WHATSAPP_FROM", "Shop", "must be a number in E.164"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        config.load()
    assert str(caught.value).startswith(f"{name}: ")
    assert problem in str(caught.value)


def test_right_values_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KNOCKTWICE_SMS_COUNTRIES": '["GB", "US"]',
        "KNOCKTWICE_SMS_PRICES": '{"GB": 0.05, "*": 0.1}',
        "KNOCKTWICE_DEFAULT_REGION": "DE",
        "KNOCKTWICE_NUMBERS": "possible",
        "KNOCKTWICE_NUMBER_KINDS": '["mobile"]',
        "KNOCKTWICE_TWILIO_FROM": "+1 (500) 555-0006",
        "KNOCKTWICE_WHATSAPP_FROM": "whatsapp:+16505550199",
    }.items():
        monkeypatch.setenv(name, value)
    found = config.load()
    assert (found.twilio_from, found.whatsapp_from) == ("+15005550006", "+16505550199")
    rules = found.phone_rules
    assert (rules.region, rules.plan, rules.kinds) == ("DE", Plan.POSSIBLE, frozenset({Kind.MOBILE}))


def test_without_settings_numbers_are_judged_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_DEFAULT_REGION", "")
    rules = config.load().phone_rules
    assert (rules.region, rules.plan, rules.kinds) == (None, Plan.VALID, USUAL)
