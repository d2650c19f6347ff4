"""Real servers for the tests: one PostgreSQL and one Valkey per session, an empty database and keyspace per test."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import structlog

from knocktwice_worker import services
from knocktwice_worker.cli import main, output
from knocktwice_worker.config import Settings
from knocktwice_worker.database import migrations
from knocktwice_worker.embedded import installation
from knocktwice_worker.embedded.servers import EmbeddedServers, Servers, addresses
from knocktwice_worker.sandbox import Sandbox
from knocktwice_worker.services import process
from mutants.trial import SHARED_SERVERS
from support import databases
from support.clock import Clock
from support.commands import CommandOutput
from support.databases import lent_database
from support.http_gateway import HttpGateway
from support.pgbouncer import PgBouncer
from support.sms_provider import SmsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from knocktwice_worker.services import Services


pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the whole suite take another way to its databases."""
    parser.addoption("--pooled", action="store_true", help="reach databases by way of PgBouncer in transaction mode")


def pytest_configure() -> None:
    """Let no logger be cached: it would keep one test's configuration in the next, which then sees no line."""
    configure = structlog.configure
    structlog.configure = lambda **given: configure(**{**given, "cache_logger_on_first_use": False})


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command line logs to its own standard error, which is closed when its test is over."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL and Valkey, started once; or by another process, for many of ours one after the other."""
    if home := os.environ.get(SHARED_SERVERS):
        yield addresses(Path(home))
        return
    with EmbeddedServers(tmp_path_factory.mktemp("servers")) as running:
        engine = sa.create_engine(running.database_url)
        migrations.upgrade(engine)
        engine.dispose()
        yield running


@pytest.fixture(scope="session", autouse=True)
def pooled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With ``--pooled`` tests reach their databases by way of PgBouncer in transaction mode."""
    if not request.config.getoption("--pooled"):
        yield
        return
    servers: Servers = request.getfixturevalue("servers")
    # Not the database that all others are copied from: nobody may use it meanwhile.
    behind = sa.make_url(servers.database_url).set(database="postgres").render_as_string(hide_password=False)
    with (
        PgBouncer(tmp_path_factory.mktemp("pooler") / "files", behind, sessions=20) as pooler,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KNOCKTWICE_DATABASE_POOLED", "true")
        databases.way.append(pooler.way_to)
        yield
        databases.way.pop()


@pytest.fixture(scope="module", autouse=True)
def module_directly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reach databases directly in a module that is marked so, for what its tests share."""
    with _directly(request):
        yield


@pytest.fixture(autouse=True)
def directly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reach databases directly in a test that is marked so."""
    with _directly(request):
        yield


@contextmanager
def _directly(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.node.get_closest_marker("own_session"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "way", [])
        patch.delenv("KNOCKTWICE_DATABASE_POOLED", raising=False)
        yield


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A migrated database of the test's own."""
    with lent_database(servers) as url:
        yield url


@pytest.fixture
def valkey_url(servers: Servers) -> Iterator[str]:
    """An empty keyspace of the session's Valkey, as kombu's URL. Long-lived systems under test use another one."""
    url = f"{servers.broker_url}?virtual_host=1"
    client = installation.connect_redis(url)
    client.flushdb()
    yield url
    client.close()


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[redis.Redis]:
    """A plain client of the test's Valkey."""
    client = installation.connect_redis(valkey_url)
    yield client
    client.close()


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    """Settings that point at the test's servers."""
    return Settings(database_url=database_url, broker_url=valkey_url, secret="test", home=tmp_path)


@pytest.fixture
def here(settings: Settings) -> Iterator[Services]:
    """A worker's services, in this process."""
    built = services.Services(settings)
    yield built
    built.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for FCM and Twilio."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def acme() -> Iterator[SmsProvider]:
    """An SMS provider that a file describes."""
    with SmsProvider() as running:
        yield running


@pytest.fixture
def working(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    """A worker's services that reach the sandbox."""
    for name, value in sandbox.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    built = services.Services(Settings(**settings.model_dump(include={"database_url", "broker_url", "secret", "home"})))
    yield built
    built.close()


@pytest.fixture
def gateway(here: Services) -> Iterator[HttpGateway]:
    """The HTTP gateway, served by uvicorn on 127.0.0.1."""
    with HttpGateway(here) as running:
        yield running


@pytest.fixture
def clock(database_url: str) -> Clock:
    """The test database's clock, to be moved."""
    return Clock(database_url)


@pytest.fixture
def configured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's environment names the test's servers, for what reads its settings there."""
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", str(settings.broker_url))
    process._services.clear()
    yield
    services.services().close()
    process._services.clear()


@pytest.fixture
def run(
    configured: None,  # noqa: ARG001 - commands read it in the environment
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., CommandOutput]:
    """Runs a command line, given word by word, against the test's servers."""
    monkeypatch.setenv("COLUMNS", "200")
    # Where tests run side by side it was made for 80.
    monkeypatch.setattr(output.out, "width", 200)

    def command(*words: str) -> CommandOutput:
        monkeypatch.setattr(sys, "argv", ["knocktwice", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        return CommandOutput(int(ended.value.code or 0), *capsys.readouterr())

    return command
