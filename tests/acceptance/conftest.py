"""One installation per test module: its own database and keyspace, the sandbox, one worker process, a clock to move."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
import sqlalchemy as sa

from knocktwice_worker.embedded.children import Child
from support.clock import Clock
from support.ports import free_port
from support.redis_keys import without_end
from support.system import PATIENT, System, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers

#: Valkey has sixteen keyspaces; the tests with one of their own use number 1.
_keyspaces = itertools.cycle(range(2, 16))


@pytest.fixture(scope="module")
def installation(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation without workers."""
    keyspace = next(_keyspaces)
    name = f"system_{keyspace}"
    url = sa.make_url(servers.database_url)
    admin = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as conn:
        conn.execute(sa.text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        conn.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {url.database}"))
    database_url = url.set(database=name).render_as_string(hide_password=False)
    broker_url = f"{servers.broker_url}?virtual_host={keyspace}"
    with System(database_url, broker_url, tmp_path_factory.mktemp(name), {**PATIENT}) as system:
        system.redis.flushdb()
        yield system
        assert without_end(system.redis) == []


@pytest.fixture(scope="module")
def clock(installation: System) -> Clock:
    """The installation's clock."""
    return Clock(installation.database_url)


@pytest.fixture(scope="module")
def system(installation: System) -> System:
    """The installation with one worker."""
    installation.start_worker()
    return installation


@pytest.fixture(scope="module")
def gateway(installation: System) -> Iterator[str]:
    """The gateway's address; a worker runs, too, and both know it as the public one."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    installation.settings["KNOCKTWICE_PUBLIC_URL"] = url
    argv = [sys.executable, "-m", "knocktwice_worker.cli", "gateway", "--port", str(port)]
    child = Child("gateway", argv, installation.home / "gateway.log", env=installation.environment)
    child.start()
    installation.workers.append(child)
    installation.start_worker()
    eventually(lambda: _ready(url), why=installation.logs)
    yield url
    child.stop()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
