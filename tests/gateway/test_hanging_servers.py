"""A server that hangs gives no error: the gateway says so all the same, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker import services
from knocktwice_worker.config import Settings
from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.servers import EmbeddedServers
from knocktwice_worker.fleet import members
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.runtime.announcing import Announcer
from knocktwice_worker.services import Services, process
from support.flower import flower, status
from support.hanging_servers import hanging
from support.http_gateway import HttpGateway
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

#: What a probe waits at most. Nothing here needs that long, so a busy machine does not fail the tests.
PATIENCE_S = 10.0
READS = ("/v1/notifications/x", "/v1/stats", "/v1/blasts", "/v1/brakes")


@pytest.fixture(scope="module")
def servers_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    embedded = EmbeddedServers(tmp_path_factory.mktemp("hanging"))
    with embedded as running:
        engine = sa.create_engine(running.database_url)
        migrations.upgrade(engine)
        engine.dispose()
        yield embedded


@pytest.fixture
def doomed(servers_of_its_own: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpGateway]:
    servers = servers_of_its_own.postgres.servers
    settings = Settings(
        database_url=servers.database_url,
        broker_url=servers.broker_url,
        secret="test",
        home=tmp_path_factory.mktemp("home"),
    )
    here = Services(settings)
    with HttpGateway(here) as running:
        yield running
    here.close()


def _detail(answer: httpx.Response) -> str:
    assert answer.status_code == 503
    return str(answer.json()["detail"])


def test_flowers_pages_wait_for_no_server_that_hangs(servers_of_its_own: EmbeddedServers, tmp_path: Path) -> None:
    servers = servers_of_its_own.postgres.servers
    settings = Settings(database_url=servers.database_url, broker_url=servers.broker_url, secret="test", home=tmp_path)
    with flower(settings, tmp_path) as url:
        for path in ("", "/providers"):
            assert status(f"{url}/notifications{path}") == 200
            with hanging(servers_of_its_own.valkey):
                assert status(f"{url}/notifications{path}") == 200
        with hanging(servers_of_its_own.postgres):
            assert status(f"{url}/notifications") == 503
        assert status(f"{url}/notifications") == 200


@pytest.mark.parametrize("name", ["PostgreSQL", "the broker"])
def test_a_hanging_server_is_named_by_readyz_and_by_all_reads(
    doomed: HttpGateway, servers_of_its_own: EmbeddedServers, name: str
) -> None:
    client, stranger = doomed.client(Scope.ADMIN), doomed.stranger()
    assert client.get("/v1/stats").status_code == 200
    server = servers_of_its_own.postgres if name == "PostgreSQL" else servers_of_its_own.valkey
    with hanging(server):
        # What was well a moment ago still counts.
        eventually(lambda: stranger.get("/readyz", timeout=PATIENCE_S).status_code == 503)
        for path in ("/readyz", "/readyz", *READS):
            assert f"{name} does not answer" in _detail(client.get(path, timeout=PATIENCE_S)), path
        assert stranger.get("/healthz").status_code == 200
    eventually(lambda: stranger.get("/readyz").status_code == 200)
    eventually(lambda: client.get("/v1/stats").status_code == 200)


def test_a_worker_whose_database_hangs_goes_on_saying_that_it_lives(
    servers_of_its_own: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = servers_of_its_own.postgres.servers
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", servers.database_url)
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", servers.broker_url)
    monkeypatch.setenv("KNOCKTWICE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(members, "EVERY_S", 0.1)
    process._services.clear()
    here, announcer = services.services(), Announcer("worker", ["knocktwice.push"], tries=False)
    announcer.start()
    try:
        eventually(lambda: [one for one in members.list_all(here.redis) if one.ahead_s is not None])
        with hanging(servers_of_its_own.postgres):
            # The first announcement may have been under way.
            for _ in range(3):
                here.redis.delete("knocktwice:members")
                eventually(lambda: members.list_all(here.redis))
    finally:
        announcer.stop()
        here.close()
        process._services.clear()


def test_doctor_names_a_hanging_database_and_ends(
    servers_of_its_own: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    servers = servers_of_its_own.postgres.servers
    own = {
        "KNOCKTWICE_DATABASE_URL": servers.database_url,
        "KNOCKTWICE_BROKER_URL": servers.broker_url,
        "KNOCKTWICE_HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    argv = [sys.executable, "-m", "knocktwice_worker.cli", "doctor"]
    with hanging(servers_of_its_own.postgres):
        done = subprocess.run(argv, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    lines = {line[9:].split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    for name in ("postgres", "migrations", "backlog", "dead letters"):
        assert lines[name].startswith("error"), done.stdout
        assert "no answer within" in lines[name]
    assert not lines["broker"].startswith("error")
