"""The tables that SQLAlchemy describes are the ones that the migrations build, and so are the comments."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.database.schema import CLOCK, metadata
from support.schema_dump import schema_lines

pytestmark = pytest.mark.own_session


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


def test_a_migration_that_cannot_have_its_table_gives_up_and_holds_nobody_up(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as holder:
        holder.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with engine.begin() as holder:
        holder.execute(sa.text("SELECT FROM users"))
        with pytest.raises(migrations.TableInUse, match="lock timeout"):
            migrations.upgrade(engine, lock_timeout=timedelta(milliseconds=1))
        holder.execute(sa.text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE NOWAIT"))
