"""Alembic's entry point, for :func:`knocktwice_worker.database.migrations.upgrade` and for Alembic's own commands.

``upgrade`` hands over a connection. Alembic's commands find the database as every Alembic does, by ``sqlalchemy.url``
in a file that ``-c`` names; without one, by the option ``services`` of ``[tool.alembic]`` in ``pyproject.toml``. This
room must not know what builds services, so the option names the function: the database is then the one that workers
use, by ``KNOCKTWICE_DATABASE_URL`` or embedded.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, engine_from_config

from knocktwice_worker.database.migrations import LOCK_TIMEOUT, one_at_a_time, set_lock_timeout
from knocktwice_worker.database.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config


def _write_sql() -> None:
    """Print the SQL of migrations instead of running it; no database is needed."""
    context.configure(dialect_name="postgresql", target_metadata=metadata, transaction_per_migration=True)
    context.execute(set_lock_timeout(LOCK_TIMEOUT))
    with context.begin_transaction():
        context.run_migrations()


def _run(connection: Connection) -> None:
    with one_at_a_time(connection, context.config.attributes.get("lock_timeout", LOCK_TIMEOUT)):
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            # "alembic check" looks at defaults, too.
            compare_server_default=True,
            on_version_apply=lambda **_: context.config.attributes.get("applied", lambda: None)(),
        )
        with context.begin_transaction():
            context.run_migrations()


def _engine(config: Config) -> Engine:
    section = config.get_section(config.config_ini_section, {})
    if "sqlalchemy.url" in section:
        return engine_from_config(section)
    services = config.get_alembic_option("services")
    if services is None:
        raise CommandError(
            "which database? Name sqlalchemy.url in the file that -c names, or run it beside pyproject.toml"
        )
    engine: Engine = resolve_name(services)().engine
    return engine


if context.is_offline_mode():
    _write_sql()
elif (handed_over := context.config.attributes.get("connection")) is not None:
    _run(handed_over)
else:
    with _engine(context.config).connect() as own:
        _run(own)
