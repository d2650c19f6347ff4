"""Installations with servers of their own, to be killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.servers import EmbeddedServers
from support.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator


_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """PostgreSQL and Valkey of this module alone."""
    embedded = EmbeddedServers(tmp_path_factory.mktemp("doomed"))
    with embedded:
        yield embedded


@pytest.fixture
def system(doomed: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An empty installation on them, without workers."""
    doomed.postgres.start()
    doomed.valkey.start()
    engine = sa.create_engine(doomed.postgres.servers.database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        # A killed worker's session may still be in a statement and hold some tables: the drop would deadlock with it.
        conn.execute(sa.text(_OTHERS))
        conn.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    migrations.upgrade(engine)
    engine.dispose()
    servers = doomed.postgres.servers
    with System(servers.database_url, servers.broker_url, tmp_path_factory.mktemp("home")) as built:
        built.redis.flushall()
        yield built
