"""A missing or absurd setting stops the process and names the variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker import config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KNOCKTWICE_DATABASE_URL", "KNOCKTWICE_BROKER_URL", "KNOCKTWICE_SECRET", "TWILIO_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KNOCKTWICE_SMS_PER_DAY", "ten"),
        ("KNOCKTWICE_SMS_PER_DAY", "-1"),
        ("KNOCKTWICE_SMS_DAY_ZONE", "Mars/Olympus"),
        ("KNOCKTWICE_SMS_DAY_ZONE", "../../etc/passwd"),
        ("KNOCKTWICE_TICK_S", "0"),
        ("KNOCKTWICE_TICK_S", "nan"),
        ("KNOCKTWICE_CONCURRENCY", "0"),
        ("KNOCKTWICE_PROVIDER_TIMEOUT_S", "1e9"),
        ("KNOCKTWICE_LEASE_S", "40"),
        ("KNOCKTWICE_SMS_RETRY_UNKNOWN", "critical"),
        ("KNOCKTWICE_SMS_RETRY_UNKNOWN", '["urgent"]'),
    ],
)
def test_an_absurd_value_is_refused_by_the_variables_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(config.ConfigurationError, match=f"^{variable}"):
        config.load()


@pytest.mark.parametrize("field", config.OPTIONAL)
def test_an_empty_variable_leaves_its_setting_unset(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    other = field.startswith("google") or field in ("twilio_account_sid", "twilio_auth_token")
    monkeypatch.setenv(field.upper() if other else f"KNOCKTWICE_{field.upper()}", "")
    assert getattr(config.load(), field) is None


def test_secrets_may_come_from_files_and_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush-hush\n")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN_FILE", str(tmp_path / "token"))
    loaded = config.load()
    assert loaded.twilio_auth_token
    assert loaded.twilio_auth_token.get_secret_value() == "hush-hush"
    assert "hush" not in repr(loaded)


def test_a_secret_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KNOCKTWICE_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(config.ConfigurationError, match=r"^KNOCKTWICE_SECRET_FILE: cannot read .*missing"):
        config.load()
