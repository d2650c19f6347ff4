"""Managed servers: a role that owns its database and a Redis without administration are enough, as the page says."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import redis
import sqlalchemy as sa

from knocktwice import Sms
from support.own_valkey import OwnValkey
from support.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.embedded.servers import Servers

#: What ElastiCache, Memorystore and Azure keep for themselves, each some of it.
_ADMINISTRATION = (
    "acl bgrewriteaof bgsave cluster config debug failover migrate module monitor psync replicaof save shutdown slaveof "
    "slowlog sync swapdb"
)
_numbers = itertools.count()


@pytest.fixture
def tenant(servers: Servers) -> Iterator[str]:
    """An empty database, by a role that owns it and may do nothing else on its server."""
    name = f"tenant_{os.getpid()}_{next(_numbers)}"
    address = sa.make_url(servers.database_url)
    admin = sa.create_engine(address.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'theirs' NOSUPERUSER NOCREATEDB NOCREATEROLE")
        conn.exec_driver_sql(f"CREATE DATABASE {name} OWNER {name}")
        yield address.set(database=name, username=name, password="theirs").render_as_string(hide_password=False)
        conn.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        conn.exec_driver_sql(f"DROP ROLE {name}")
    admin.dispose()


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[OwnValkey]:
    """A Valkey whose users may not administer it."""
    rights = " ".join(f"-{command}" for command in _ADMINISTRATION.split())
    file = tmp_path / "users.acl"
    file.write_text(f"user default on nopass ~* &* +@all {rights}\n")
    with OwnValkey(tmp_path / "valkey", {"aclfile": str(file)}) as valkey:
        with pytest.raises(redis.exceptions.NoPermissionError):
            valkey.client.config_get("maxmemory")
        yield valkey


def test_an_owner_of_a_database_and_a_redis_without_administration_are_enough(
    tenant: str, managed: OwnValkey, tmp_path: Path
) -> None:
    with System(tenant, managed.url, tmp_path) as system:

        def knocktwice(*words: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "knocktwice_worker.cli", *words]
            return subprocess.run(
                argv, env=system.environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
            )

        migrated = knocktwice("migrate")
        assert migrated.returncode == 0, migrated
        system.start_worker()
        id_ = system.notify("+16505550123", sms=Sms("Come soon.", after=timedelta(0)))
        assert system.ended(id_).state == "texted"
        told = {check["name"]: check for check in json.loads(knocktwice("doctor", "--json").stdout)}
        refused = [line for line in managed.client.info("errorstats").items() if "NOPERM" in line[0]]
    assert {told[name]["level"] for name in ("postgres", "migrations", "broker")} == {"ok"}, told
    # The one is this test's own.
    assert refused == [("errorstat_NOPERM", {"count": 1})]
