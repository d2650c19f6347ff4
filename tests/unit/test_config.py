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


@pytest.mark.parametrize("held", [b"\xff\xfe", b"a\0b"])
def test_a_secret_file_that_holds_no_text_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: bytes
) -> None:
    (tmp_path / "secret").write_bytes(held)
    monkeypatch.setenv("KNOCKTWICE_SECRET_FILE", str(tmp_path / "secret"))
    with pytest.raises(config.ConfigurationError, match=r"^KNOCKTWICE_SECRET_FILE: .*secret is not a file of text"):
        config.load()


@pytest.mark.parametrize("url", ["mysql://u@h/d", "sqlite:///x", "h:5432/d", "postgresql+asyncpg://h/d"])
def test_another_database_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", url)
    with pytest.raises(config.ConfigurationError, match=r"^KNOCKTWICE_DATABASE_URL: must be PostgreSQL"):
        config.load()


def test_a_list_that_is_none_is_refused_with_an_example_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_SMS_COUNTRIES", "DE")
    with pytest.raises(config.ConfigurationError, match=r'^KNOCKTWICE_SMS_COUNTRIES: .* like \["DE", "AT"\]'):
        config.load()


SPANS = [name for name in config.Settings.model_fields if name.endswith("_s") and not name.endswith("per_s")]


@pytest.mark.parametrize("name", SPANS)
def test_a_span_may_be_written_with_its_unit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    usual = config.Settings.model_fields[name].default
    monkeypatch.setenv(f"KNOCKTWICE_{name.upper()}", f"{usual:f}s")
    assert getattr(config.load(), name) == usual


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("push_retry_s", "10m", 600),
        ("lease_s", "1.5m", 90),
        ("webhook_give_up_s", "2d", 172_800),
        ("retention_days", "30d", 30),
    ],
)
def test_a_span_in_another_unit(monkeypatch: pytest.MonkeyPatch, name: str, written: str, meant: float) -> None:
    monkeypatch.setenv(f"KNOCKTWICE_{name.upper()}", written)
    assert getattr(config.load(), name) == meant


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        ("push_retry_s", "10 minutes", 'must be seconds or a time like "90s"'),
        ("push_retry_s", "", "must be seconds"),
        ("retention_days", "12h", 'must be whole days, like 90 or "90d"'),
        ("retention_days", "soon", 'must be whole days, like 90 or "90d"'),
        ("push_per_s", "10m", "valid number"),
    ],
)
def test_what_is_no_span_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, written: str, problem: str) -> None:
    monkeypatch.setenv(f"KNOCKTWICE_{name.upper()}", written)
    with pytest.raises(config.ConfigurationError, match=problem):
        config.load()
