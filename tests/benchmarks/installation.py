"""What is measured, on one machine: the embedded servers, the stand-in for the providers, real worker processes."""

from __future__ import annotations

import itertools
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks.provider import Provider
from knocktwice_worker.database import migrations
from knocktwice_worker.embedded import installation
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.embedded.servers import EmbeddedServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

#: Registered people in each database.
PEOPLE = 100_000
#: As many worker processes as the textbook has.
WORKERS = 2

# Their numbers lie apart from each other, as people's do: many side by side look like SMS pumping, and a brake would go
# on. 7,999,993 is a prime, so none comes twice.
_AUDIENCE = (
    "INSERT INTO users (id) SELECT 'user-' || i FROM generate_series(0, :people - 1) i",
    """
    INSERT INTO devices (registration, user_id, platform)
    SELECT md5(i::text) || ':' || repeat(md5('t' || i), 4), 'user-' || i, 'android' FROM generate_series(0, :people - 1) i
    """,
    """
    INSERT INTO phones (user_id, number)
    SELECT 'user-' || i, '+1' || (6502000000 + i::bigint * 611953 % 7999993) FROM generate_series(0, :people - 1) i
    """,
)


class TookTooLong(Exception):
    """What was waited for did not happen; the text holds the ends of the workers' logs."""


class Installation:
    """Servers and provider, from ``with`` to its end.

    Args:
        home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.provider = self._stack.enter_context(Provider(self.home / "provider"))
        self._embedded = EmbeddedServers(self.home / "servers")
        self._servers = self._stack.enter_context(self._embedded)
        self.broker_url = self._servers.broker_url
        self.redis = installation.connect_redis(self.broker_url)
        engine = sa.create_engine(self._servers.database_url)
        migrations.upgrade(engine)
        with engine.begin() as conn:
            for statement in _AUDIENCE:
                conn.execute(sa.text(statement), {"people": PEOPLE})
        engine.dispose()
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        self._stack.close()

    def database(self) -> str:
        """Make a database with the audience and nothing else, and return its URL."""
        url, name = sa.make_url(self._servers.database_url), f"bench_{next(self._numbers)}"
        admin = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with admin.connect() as conn:
            conn.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {url.database}"))
        made = url.set(database=name)
        engine = sa.create_engine(made, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as conn:
            conn.execute(sa.text("ANALYZE"))
        return made.render_as_string(hide_password=False)

    def environment(self, database_url: str, provider_url: str) -> dict[str, str]:
        """Return what a worker needs to know."""
        strangers = ("KNOCKTWICE_", "CELERY_", "TWILIO_", "GOOGLE_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(strangers)}
        return {
            **inherited,
            **self.provider.environment(provider_url),
            "KNOCKTWICE_DATABASE_URL": database_url,
            "KNOCKTWICE_BROKER_URL": self.broker_url,
            "KNOCKTWICE_HOME": str(self.home),
            "KNOCKTWICE_SECRET": "benchmark",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }

    def plainly(self, database_url: str) -> dict[str, str]:
        """Return where the servers are, in words that programs of others understand."""
        url = sa.make_url(database_url)
        redis = self.redis.connection_pool.connection_kwargs
        return {
            "PGHOST": str(url.host or url.query["host"]),
            "PGPORT": str(url.port or url.query.get("port", 5432)),
            "PGUSER": str(url.username or url.query.get("user", "postgres")),
            "PGDATABASE": str(url.database),
            "PEER_SOCKET": str(redis["path"]),
            "PEER_DB": str(redis.get("db", 0)),
        }

    def empty_the_broker(self) -> None:
        """Forget all messages and limits; the limits are as on any day but the very first,
        when Postgres is asked too.
        """
        self.redis.flushdb()
        run = self.redis.info("server")["run_id"]
        self.redis.hset("{knocktwice:sms}:complete", mapping={"run": run, "complete": 0})

    @contextmanager
    def workers(self, application: str, *options: str, env: Mapping[str, str], count: int = 1) -> Iterator[list[Child]]:
        """Run Celery workers until the block ends; they take tasks when it begins."""
        argv = [sys.executable, "-m", "celery", "-A", application, "worker", "--loglevel", "INFO", *options]
        with self.processes(argv, "-n", "{name}@bench", env=env, count=count) as started:
            yield started

    @contextmanager
    def processes(
        self, argv: Sequence[str], *options: str, env: Mapping[str, str], count: int = 1
    ) -> Iterator[list[Child]]:
        """Run worker processes until the block ends; each has said `` ready.`` when it begins.

        Args:
            options: more arguments, in which ``{name}`` becomes the process's own name.
        """
        started = []
        try:
            for _ in range(count):
                name = f"worker{next(self._numbers)}"
                own = [option.format(name=name) for option in options]
                child = Child(name, [*argv, *own], self.home / f"{name}.log", env={**os.environ, **env})
                child.start()
                started.append(child)
            self.wait(lambda: all(" ready." in c.log_path.read_text() for c in started if c.alive), started)
            yield started
        finally:
            for child in started:
                child.kill()

    def roles(self, workers: list[Child]) -> Callable[[], dict[str, list[int]]]:
        """Return who plays which role in a measurement."""
        return lambda: {
            "workers": [c.pid for c in workers],
            "postgres": [self._embedded.postgres.pid],
            "valkey": [self._embedded.valkey.pid],
            "provider": [self.provider.pid],
        }

    def wait(
        self, look: Callable[[], bool], workers: list[Child], *, limit_s: float = 120, every_s: float = 0.05
    ) -> None:
        """Wait until something is so.

        Args:
            every_s: seconds between two looks; a look costs something, too.

        Raises:
            TookTooLong: it never was.
        """
        deadline = time.monotonic() + limit_s
        while not look():
            if time.monotonic() > deadline or not all(c.alive for c in workers):
                raise TookTooLong("\n".join(c.log_tail(20) for c in workers))
            time.sleep(every_s)
