"""The tables that SQLAlchemy describes are the ones that the migrations build."""

from __future__ import annotations

import subprocess

import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.database.schema import CLOCK, metadata
from knocktwice_worker.embedded.server import postgres_program


def _dump(url: str) -> list[str]:
    """Return the schema as pg_dump tells it, sorted so that the order of creation does not matter."""
    parsed = sa.make_url(url)
    command = [str(postgres_program("pg_dump")), "--schema-only", "--no-owner", "--exclude-table=alembic_version"]
    command += ["-h", str(parsed.query["host"]), "-U", str(parsed.username), str(parsed.database)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (line.strip().rstrip(",;") for line in text.splitlines())
    return sorted(line for line in lines if line and not line.startswith(("--", "\\")))


def test_the_schema_is_the_sum_of_the_migrations(database_url: str) -> None:
    migrated = _dump(database_url)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        conn.execute(sa.text(CLOCK))
        metadata.create_all(conn)
    declared = _dump(database_url)
    assert any("deliveries_wake_at_idx" in line for line in migrated)
    # A schema that was made anew is listed by pg_dump, the original "public" is not.
    assert [line for line in declared if "SCHEMA public" not in line] == migrated


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    before = _dump(database_url)
    migrations.upgrade(engine)
    assert _dump(database_url) == before
