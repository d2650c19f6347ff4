"""Alembic's own commands, run as an operator runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.server import postgres_program
from knocktwice_worker.embedded.servers import EmbeddedServers
from support.commands import CommandOutput
from support.schema_dump import schema_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    Alembic = Callable[..., CommandOutput]

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.own_session


def _alembic(*arguments: str, folder: Path = ROOT, **variables: str) -> CommandOutput:
    others = {name: value for name, value in os.environ.items() if not name.startswith("KNOCKTWICE_")}
    command = [str(Path(sys.executable).with_name("alembic")), *arguments]
    done = subprocess.run(command, cwd=folder, env={**others, **variables}, capture_output=True, text=True, check=False)
    return CommandOutput(done.returncode, done.stdout, done.stderr)


def _head() -> str:
    """Return the newest migration, by its file."""
    return max(path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("0*.py"))


@pytest.fixture
def alembic(database_url: str) -> Alembic:
    """Alembic's command line, for the test's database."""
    return lambda *arguments: _alembic(*arguments, KNOCKTWICE_DATABASE_URL=database_url)


def test_alembic_tells_which_migration_the_database_has(alembic: Alembic) -> None:
    assert alembic("current").out == f"{_head()} (head)\n"


def test_without_a_setting_it_is_the_embedded_database(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path):
        upgraded = _alembic("upgrade", "0001", KNOCKTWICE_HOME=str(tmp_path))
        assert upgraded.code == 0, upgraded.err
        assert _alembic("current", KNOCKTWICE_HOME=str(tmp_path)).out == "0001\n"


def test_a_file_of_ones_own_may_name_the_database(database_url: str, tmp_path: Path) -> None:
    lines = ["[alembic]", "script_location = knocktwice_worker.database:migrations", f"sqlalchemy.url = {database_url}"]
    (tmp_path / "alembic.ini").write_text("\n".join(lines).replace("%", "%%"))
    assert _alembic("current", folder=tmp_path).out == f"{_head()} (head)\n"


def test_where_nothing_names_the_database_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = knocktwice_worker.database:migrations\n")
    said = _alembic("current", folder=tmp_path)
    assert said.code
    assert "sqlalchemy.url" in said.out + said.err


def test_a_migrated_database_has_nothing_to_upgrade(alembic: Alembic) -> None:
    said = alembic("check")
    assert (said.code, said.out) == (0, "No new upgrade operations detected.\n"), said.err


def test_whatever_differs_in_a_database_is_an_operation(alembic: Alembic, database_url: str) -> None:
    changes = {
        "ALTER TABLE deliveries DROP COLUMN sender": "('add_column', None, 'deliveries', Column('sender'",
        "ALTER TABLE deliveries ALTER COLUMN parts TYPE integer": "('modify_type', None, 'deliveries', 'parts'",
        "ALTER TABLE deliveries ALTER COLUMN tries DROP DEFAULT": "('modify_default', None, 'deliveries', 'tries'",
        "ALTER TABLE blasts ALTER COLUMN state DROP NOT NULL": "('modify_nullable', None, 'blasts', 'state'",
        "COMMENT ON COLUMN blasts.reason IS 'The name.'": "('modify_comment', None, 'blasts', 'reason'",
        "DROP INDEX notifications_person_by_time_idx": "('add_index', Index('notifications_person_by_time_idx'",
        "CREATE TABLE another (id integer)": "('remove_table', Table('another'",
    }
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("; ".join(changes)))
    said = alembic("check")
    assert said.code
    assert [change for change, operation in changes.items() if operation not in said.out + said.err] == []


def test_the_sql_of_all_migrations_builds_the_same_without_us(alembic: Alembic, database_url: str) -> None:
    before = schema_lines(database_url)
    script = _alembic("upgrade", "head", "--sql")
    assert script.code == 0, script.err
    _psql(database_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    _psql(database_url, script.out)
    assert schema_lines(database_url) == before
    assert alembic("current").out == f"{_head()} (head)\n"


def test_all_migrations_can_be_taken_back(alembic: Alembic, database_url: str) -> None:
    before = schema_lines(database_url)
    said = alembic("downgrade", "base")
    assert said.code == 0, said.err
    assert [line for line in schema_lines(database_url) if line.startswith("CREATE")] == []
    migrations.upgrade(sa.create_engine(database_url, poolclass=sa.NullPool))
    assert schema_lines(database_url) == before


def _psql(url: str, script: str) -> None:
    place = sa.make_url(url)
    command = [str(postgres_program("psql")), "--quiet", "--set=ON_ERROR_STOP=1", "-h", str(place.query["host"])]
    command += ["-U", str(place.username), str(place.database)]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
