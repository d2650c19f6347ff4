"""The system as an operator runs it, each part in a process of its own, and everything that can be done to it.

Servers and workers are reached over wires that can be broken. What dies is started again, as a supervisor would do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import sqlalchemy as sa
from redis import RedisError

from knocktwice_worker.database import migrations
from knocktwice_worker.embedded import installation
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.embedded.servers import EmbeddedServers
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.sandbox.accounts import Accounts
from oracle import provider, wires
from oracle.suspendable_worker import file_of
from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from knocktwice_worker.embedded.server import Server
    from oracle.wires import Break

SECRET = "oracle"
#: Processes of the gateway.
GATEWAYS = 2
#: Whose connections each wire carries.
WIRES = ("worker-database", "worker-broker", "worker-provider", "caller-broker", "caller-gateway")
#: How long a part may take to be ready, and how soon what died is started again (seconds).
_READY_S, _RESTART_S = 240, 0.3


class NotReady(Exception):
    """A part does not answer; the text holds the end of its log."""


@dataclass
class Part:
    """A process that is started again when it dies."""

    child: Child
    died_at: float | None = None
    starts: int = 1

    def look(self) -> None:
        """Start it again some time after it died."""
        if self.child.alive:
            self.died_at = None
        elif self.died_at is None:
            self.died_at = time.monotonic()
        elif time.monotonic() - self.died_at > _RESTART_S:
            self.starts += 1
            self.child.start()

    def says(self, word: str, times: int = 1) -> bool:
        """Whether its log has a word so often for each of its starts."""
        return self.child.log_path.read_text(errors="replace").count(word) >= times * self.starts


class Installation:
    """From ``with`` to its end.

    Args:
        home: an empty folder.
        settings: environment of workers and gateway, beyond addresses and secrets.
        workers: how many worker processes.
        seed: of the provider's choices.
    """

    def __init__(self, home: Path, settings: dict[str, str], *, workers: int = 2, seed: int = 0) -> None:
        self.home = home
        self.books, self.log = home / "provider.jsonl", home / "callers.jsonl"
        self.points = home / "points"
        self._settings = settings
        self._workers = workers
        self._seed = seed
        self.parts: dict[str, Part] = {}
        self.stopped: set[int] = set()
        #: How safely callers, phones and the gateway want messages kept.
        self.durability = "disk"

    def __enter__(self) -> Self:
        self.points.mkdir()
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        self.servers = EmbeddedServers(self.home / "servers")
        # Callers wait until the disk has their messages: only then the end of the broker's process loses none for sure.
        self.servers.valkey.fsync = "always"
        where = stack.enter_context(self.servers)
        self.engine = sa.create_engine(where.database_url, pool_pre_ping=True)
        stack.callback(self.engine.dispose)
        self._keep_commit_times()
        migrations.upgrade(self.engine)
        self.redis = installation.connect_redis(where.broker_url)
        stack.callback(self.redis.close)
        stack.callback(self._end_all)
        self._replicate(stack)
        with self.engine.begin() as conn:
            self.key = keys.create(conn, "oracle", {Scope.ADMIN}, secret=SECRET)
        self._lay_wires(where.sockets)
        self._http = stack.enter_context(httpx.Client(timeout=10))
        self._start_all()

    @property
    def gateway_url(self) -> str:
        """The gateway, over its wire."""
        return f"http://127.0.0.1:{self.ports['caller-gateway']}"

    @property
    def broker_url(self) -> str:
        """The broker, over the callers' wire."""
        return f"redis://127.0.0.1:{self.ports['caller-broker']}/0"

    @property
    def worker_broker_url(self) -> str:
        """The broker, over the workers' wire."""
        return f"redis://127.0.0.1:{self.ports['worker-broker']}/0"

    def look(self) -> None:
        """Start again what died."""
        for part in self.parts.values():
            part.look()
        for server in self._supervised():
            if not server.alive:
                server.launch()

    def _supervised(self) -> list[Server]:
        """The servers that come back by themselves."""
        return [self.servers.postgres, self.servers.valkey]

    def _replicate(self, stack: ExitStack) -> None:
        """Give a server another one that follows it; here none has one."""

    def is_ready(self, name: str) -> bool:
        """Whether a part does its work, as far as one can see; what has no name always does."""
        part = self.parts.get(name)
        if part is None or name == "beat":
            return True
        word, times = ("Application startup complete", GATEWAYS) if name == "gateway" else (" ready.", 1)
        return part.child.alive and part.says(word, times)

    def await_gateway(self) -> None:
        """Wait until the gateway answers.

        Raises:
            NotReady: it never did.
        """
        self._await("gateway", lambda: self._http.get(f"{self.gateway_url}/healthz").raise_for_status())

    def pid(self, name: str) -> int:
        """Return the process of a part."""
        return self.parts[name].child.pid

    def children(self, name: str) -> list[int]:
        """Return the processes that a part has started."""
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid(name)).children()]
        return []

    def signal(self, pid: int, which: signal.Signals) -> None:
        """Send a signal to a process of ours, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(pid, which)
        (self.stopped.add if which is signal.SIGSTOP else self.stopped.discard)(pid)

    def break_wire(self, name: str, how: Break, seconds: float) -> None:
        """Break a wire for a while."""
        self._post(self._control, name, {"how": how, "seconds": seconds})

    def lead_wire(self, name: str, to: str) -> None:
        """Lead a wire somewhere else, and reset what it carries."""
        self._post(self._control, name, {"to": to})

    def trouble(self, **trouble: Any) -> None:
        """Put the provider in a mood; see :class:`oracle.trouble.Trouble`."""
        self._post(self._provider_url, "oracle/trouble", trouble)

    def cut_sessions(self, *, only_busy: bool) -> None:
        """End the workers' sessions at the database, all or those that are in a transaction."""
        where = "AND state <> 'idle'" if only_busy else ""
        query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() {where}"  # noqa: S608
        with suppress(sa.exc.DBAPIError), self.engine.begin() as conn:
            conn.execute(sa.text(query + " AND backend_type = 'client backend'"))

    def push_to(self, queue: str, message: bytes) -> None:
        """Put something into a queue, as anybody can who knows the broker."""
        with suppress(RedisError):
            self.redis.lpush(queue, message)

    def ask_to_stand_still(self, point: str) -> None:
        """Let the first worker that comes to a point stop there."""
        file_of(self.points, point).touch()

    def standing(self, point: str) -> Path | None:
        """Return the file of whoever stands still at this point."""
        return next(self.points.glob(file_of(self.points, point).name + ".*"), None)

    def release(self, point: str) -> None:
        """Let it go on, or stop nobody there any more."""
        file_of(self.points, point).unlink(missing_ok=True)
        while (standing := self.standing(point)) is not None:
            standing.unlink(missing_ok=True)
            self.signal(int(standing.suffix[1:]), signal.SIGCONT)

    def mend(self) -> None:
        """End all that was done to it; what died comes back by :meth:`look`."""
        for file in self.points.iterdir():
            file.unlink(missing_ok=True)
            if file.suffix:
                self.signal(int(file.suffix[1:]), signal.SIGCONT)
        for pid in list(self.stopped):
            self.signal(pid, signal.SIGCONT)
        for name in WIRES:
            self._post(self._control, name, {})
        self.trouble()

    def tails(self) -> str:
        """Return the ends of all logs, for failures."""
        return "\n".join(f"--- {name}\n{part.child.log_tail(15)}" for name, part in self.parts.items())

    def _keep_commit_times(self) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text("ALTER SYSTEM SET track_commit_timestamp = on"))
        self.engine.dispose()
        self.servers.postgres.restart()

    def _lay_wires(self, sockets: Path) -> None:
        self._control_port, provider_port, self._gateway_port = free_port(), free_port(), free_port()
        self._control, self._provider_url = (f"http://127.0.0.1:{p}" for p in (self._control_port, provider_port))
        valkey = f"unix:{sockets / 'valkey' / 'valkey.sock'}"
        to = {
            "worker-database": f"unix:{sockets / 'postgres' / '.s.PGSQL.5432'}",
            "worker-broker": valkey,
            "worker-provider": f"127.0.0.1:{provider_port}",
            "caller-broker": valkey,
            "caller-gateway": f"127.0.0.1:{self._gateway_port}",
        }
        self.ports = {name: free_port() for name in to}
        self._described = {name: (self.ports[name], where) for name, where in to.items()}
        self._provider_port = provider_port

    def _start_all(self) -> None:
        self._start("wires", "-m", wires.__name__, str(self._control_port), json.dumps(self._described))
        serve = provider.command(
            self._provider_port,
            self.books,
            self.log,
            broker_url=self.broker_url,
            durability=self.durability,
            seed=self._seed,
        )
        self._start("provider", *serve)
        self._await("wires", lambda: self._post(self._control, WIRES[0], {}))
        self._await("provider", lambda: self.trouble())
        command = "from knocktwice_worker.cli.main import main; main()"
        self._start(
            "gateway", "-c", command, "gateway", "--port", str(self._gateway_port), "--processes", str(GATEWAYS)
        )
        self._start("beat", *_celery("beat", "--schedule", str(self.home / "beat.db")))
        for n in range(1, self._workers + 1):
            self._start(f"worker{n}", *_celery("worker", "-n", f"w{n}@oracle", "--without-gossip"))
        self.await_gateway()
        for n in range(1, self._workers + 1):
            self._await(f"worker{n}", lambda n=n: self._check(f"worker{n}"))

    def _check(self, name: str) -> None:
        if not self.is_ready(name):
            raise OSError

    def _start(self, name: str, *arguments: str) -> None:
        child = Child(name, [sys.executable, *arguments], self.home / f"{name}.log", env=self._environment())
        child.start()
        self.parts[name] = Part(child)

    def _environment(self) -> dict[str, str]:
        strangers = ("KNOCKTWICE_", "CELERY_", "TWILIO_", "GOOGLE_", "PG")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(strangers)}
        provider_url = f"http://127.0.0.1:{self.ports['worker-provider']}"
        account = Accounts().write_service_account(self.home, provider_url)
        database = f"postgresql+psycopg2://postgres@127.0.0.1:{self.ports['worker-database']}/knocktwice"
        return {
            **inherited,
            **provider.environment(provider_url, account),
            "KNOCKTWICE_DATABASE_URL": database,
            "KNOCKTWICE_BROKER_URL": self.worker_broker_url,
            "KNOCKTWICE_PUBLIC_URL": self.gateway_url,
            "KNOCKTWICE_HOME": str(self.home),
            "KNOCKTWICE_SECRET": SECRET,
            "ORACLE_POINTS": str(self.points),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "KNOCKTWICE_DURABILITY": self.durability,
            **self._settings,
        }

    def _await(self, name: str, ask: Any) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                ask()
            except (httpx.HTTPError, OSError):
                self.parts[name].look()
                child = self.parts[name].child
                if time.monotonic() > deadline:
                    raise NotReady(f"{name} is not ready\n{child.log_tail(30)}") from None
                time.sleep(0.05)
            else:
                return

    def _post(self, url: str, path: str, body: dict[str, Any]) -> None:
        self._http.post(f"{url}/{path}", json=body).raise_for_status()

    def _end_all(self) -> None:
        for pid in list(self.stopped):
            self.signal(pid, signal.SIGCONT)
        for part in self.parts.values():
            part.child.kill()


def _celery(command: str, *options: str) -> list[str]:
    application = "oracle.suspendable_worker" if command == "worker" else "knocktwice_worker"
    return ["-m", "celery", "-A", application, command, "--loglevel", "INFO", *options]
