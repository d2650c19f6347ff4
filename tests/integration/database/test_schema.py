"""The tables that SQLAlchemy describes are the ones that the migrations build, and so are the comments."""

from __future__ import annotations

import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.database.schema import CLOCK, metadata
from support.schema_dump import schema_lines


def test_the_schema_is_the_sum_of_the_migrations(database_url: str) -> None:
    migrated = schema_lines(database_url)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        conn.execute(sa.text(CLOCK))
        metadata.create_all(conn)
    assert any("deliveries_wake_at_idx" in line for line in migrated)
    assert any("COMMENT ON COLUMN public.deliveries.wake_at" in line for line in migrated)
    assert schema_lines(database_url) == migrated


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    before = schema_lines(database_url)
    migrations.upgrade(engine)
    assert schema_lines(database_url) == before
