"""Fingerprints of settings: differences are named, values are not to be seen."""

from __future__ import annotations

from pathlib import Path

from knocktwice_worker.config import Settings
from knocktwice_worker.fleet.fingerprints import differences, fingerprints


def test_each_setting_that_differs_is_named() -> None:
    one = fingerprints(Settings(), "s")
    other = fingerprints(Settings(sms_per_day=3, sms_countries=frozenset({"DE", "AT"})), "s")
    assert differences(one, one) == []
    assert differences(one, other) == ["sms_countries", "sms_per_day"]


def test_the_order_of_a_set_is_no_difference() -> None:
    countries = ["AT", "BE", "CH", "DE", "DK", "ES", "FR", "GB", "IT", "LI"]
    one = fingerprints(Settings(sms_countries=frozenset(countries)), "s")
    assert differences(one, fingerprints(Settings(sms_countries=frozenset(reversed(countries))), "s")) == []


def test_what_belongs_to_one_process_is_no_difference() -> None:
    other = Settings(home=Path("/elsewhere"), concurrency=3, log_json=True, heartbeat_file=Path("/tmp/x"))  # noqa: S108
    assert differences(fingerprints(Settings(), "s"), fingerprints(other, "s")) == []


def test_of_two_secrets_only_the_secret_is_named() -> None:
    assert differences(fingerprints(Settings(), "s"), fingerprints(Settings(sms_per_day=3), "t")) == ["secret"]


def test_a_setting_that_only_one_version_knows_is_no_difference() -> None:
    one = fingerprints(Settings(), "s")
    assert differences(one, {**one, "newer": "x"}) == []


def test_no_value_can_be_read() -> None:
    found = fingerprints(Settings(twilio_auth_token="hush"), "s")
    assert "hush" not in str(found)
    assert found != fingerprints(Settings(twilio_auth_token="hush"), "t")
