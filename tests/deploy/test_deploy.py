"""What is in ``deploy/`` names commands and settings that exist, and lets nobody in who should not be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from knocktwice_worker.config import FROM_FILES, Settings

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "knocktwice"}
EXAMPLE = (DEPLOY / "env.example").read_text()
DOCKERFILE = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
#: Variables of the programs around us.
FOREIGN = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FCM_CREDENTIALS"}


def _variables() -> set[str]:
    return set(re.findall(r"^#([A-Z_]+)=", EXAMPLE, re.MULTILINE))


def _interpolated() -> set[str]:
    return set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))


def _help_of(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "KNOCKTWICE_HOME": str(home)}
    return subprocess.run(
        [program, *command[1:], "--help"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_command_of_each_service_is_a_real_one_with_real_options(name: str, tmp_path: Path) -> None:
    command = OURS[name]["command"]
    done = _help_of(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.lstrip().startswith("Usage")
    for option in (part.split("=")[0] for part in command if part.startswith("--")):
        known = option in done.stdout or option == "--conf"  # Flower's own options are Tornado's, not in its help.
        assert known, f"{option} is not an option of {command}"


def test_the_image_starts_a_worker_unless_told_otherwise(tmp_path: Path) -> None:
    command = next(line for line in DOCKERFILE if line.startswith("CMD"))
    done = _help_of(yaml.safe_load(command.removeprefix("CMD ")), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--concurrency" in done.stdout


def test_the_image_is_pinned_runs_as_nobody_special_and_holds_no_secret() -> None:
    bases = [line.split()[1] for line in DOCKERFILE if line.startswith("FROM")]
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)
    users = [line.split()[1] for line in DOCKERFILE if line.startswith("USER")]
    assert users, "the image runs as root"
    assert users[-1] not in ("0", "root")
    last_stage = max(i for i, line in enumerate(DOCKERFILE) if line.startswith("FROM"))
    assert any(line.startswith("USER") for line in DOCKERFILE[last_stage:])
    assert not re.search(r"(?i)(password|token|secret|credential)", "\n".join(DOCKERFILE))
    assert not any(line.startswith("ADD") for line in DOCKERFILE)


def test_what_the_image_copies_is_let_through_to_the_builder() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        source
        for line in DOCKERFILE
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert sources
    for source in sources:
        assert (DEPLOY.parent / source).exists(), source
        assert f"!{source}" in ignore, source


def test_no_port_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_passwords_come_from_the_environment_and_must_be_set() -> None:
    values = {name: value for service in SERVICES.values() for name, value in service.get("environment", {}).items()}
    secret = {name for name in values if re.search("PASSWORD|SECRET|AUTH|_URL", name)}
    assert secret >= {
        "POSTGRES_PASSWORD",
        "REDISCLI_AUTH",
        "FLOWER_BASIC_AUTH",
        "KNOCKTWICE_SECRET",
        "KNOCKTWICE_BROKER_URL",
    }
    for name in secret:
        assert re.search(r"\$\{\w+:\?[^}]+\}", values[name]), name
    assert not re.search(r"^(\w*(PASSWORD|SECRET|AUTH|TOKEN))=.", EXAMPLE, re.MULTILINE)


def test_the_broker_keeps_what_it_took_and_evicts_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["redis"]["volumes"]


def test_nothing_of_ours_starts_before_the_schema_is_there() -> None:
    for name in OURS.keys() - {"migrate"}:
        assert OURS[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_each_setting_in_the_compose_file_and_the_example_exists() -> None:
    known = _variables()
    for service in OURS.values():
        ours = {name for name in service["environment"] if not name.startswith("FLOWER_")}
        assert ours <= known
    filled_in = set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert filled_in - known - FOREIGN == {"FLOWER_BASIC_AUTH"}
    assert _interpolated() <= filled_in


def test_the_example_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KNOCKTWICE_")]:
        monkeypatch.delenv(name)
    defaults = Settings()
    values = dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    files = {f"{name}_FILE" for name in FROM_FILES}
    assert len(values) == len(Settings.model_fields) + len(files)
    assert files <= set(values)
    for name, value in values.items():
        if value:
            monkeypatch.setenv(name, value)
    assert Settings() == defaults


def test_ending_overdue_rows_after_a_restore_leaves_the_others_waiting(database_url: str) -> None:
    repair = re.search(r"<<'SQL'\n(.*?)\nSQL", (DEPLOY / "README.md").read_text(), re.DOTALL)
    assert repair
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(
            sa.text("""
            WITH batch AS (
              INSERT INTO batches (id, content, category, ttl, reference)
              VALUES (gen_random_uuid(), '{}', 'transactional', interval '1 hour', '{}') RETURNING id
            ), people AS (
              INSERT INTO notifications (id, batch_id, params, state, user_id)
              SELECT gen_random_uuid(), batch.id, '{}', 'active', name FROM batch, (VALUES ('late'), ('waiting')) AS p(name)
              RETURNING id, user_id
            )
            INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at)
            SELECT id, 1, 'sms', 'scheduled', 'not_clicked', at, at
            FROM people, LATERAL (SELECT now() + CASE user_id WHEN 'late' THEN interval '-1 h' ELSE '1 h' END) AS t(at)
            """)
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(repair[1])
        states = conn.execute(sa.text("SELECT user_id, state FROM notifications")).all()
    assert {row.user_id: row.state for row in states} == {"late": "cancelled", "waiting": "active"}
