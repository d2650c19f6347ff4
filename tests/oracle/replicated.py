"""Installations with a server that others follow: the first can be lost, and another one takes its place.

Each has the same few verbs: let the others lag, lose the first, see it replaced, restore it as one that follows, see it
followed.
"""

from __future__ import annotations

import shutil
import signal
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import sqlalchemy as sa
from redis import RedisError

from knocktwice_worker.embedded import installation
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.embedded.home import POSTGRES_PORT, addresses, make_for, make_private, server_user
from knocktwice_worker.embedded.server import Postgres, Server, postgres_program
from oracle.installation import Installation, NotReady
from support.sentinel import Guarded
from support.system import eventually

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from support.own_valkey import OwnValkey

#: How long a standby may take to be copied and to catch up.
_COPY_S = 60


class ReplicatedDatabase(Installation):
    """PostgreSQL with a standby that gets its place when it is lost, as a cluster manager or a managed service does it.

    Args:
        synchronous: a commit waits for the standby; otherwise what it has not got yet is lost with the server.
    """

    def __init__(self, home: Path, settings: dict[str, str], *, synchronous: bool = True, **more: Any) -> None:
        super().__init__(home, settings, **more)
        self._synchronous = synchronous
        self._first = self._second = Postgres(home / "standby")

    def lag(self) -> None:
        """Let the standby ask for no more changes."""
        self._ask(self._second, "ALTER SYSTEM SET primary_conninfo = ''")
        self._ask(self._second, "SELECT pg_reload_conf()")

    def lose(self) -> None:
        """Kill PostgreSQL."""
        # All its processes end at once and write nothing more, as when a machine is lost.
        self._first.stop(by=signal.SIGQUIT)

    def replaced(self) -> bool:
        """Make the standby the first, and let everybody find it."""
        self._first, self._second = self._second, self._first
        self._ask(self._first, "SELECT pg_promote(true, 60)")
        self.engine.dispose()
        self.engine = sa.create_engine(self._first.servers.database_url, pool_pre_ping=True)
        self.lead_wire("worker-database", self._socket())
        return True

    def restore(self) -> None:
        """Copy the first anew, and let the copy follow it."""
        shutil.rmtree(self._second.data)
        self._copy()

    def followed(self) -> bool:
        """Whether the standby has all that is committed."""
        wanted = "'sync', 'quorum'" if self._synchronous else "'async'"
        asked = f"SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ({wanted})"  # noqa: S608
        return bool(self._ask(self._first, asked))

    def _supervised(self) -> list[Server]:
        return [self.servers.valkey]

    def _replicate(self, stack: ExitStack) -> None:
        self._first = self.servers.postgres
        home = self.home / "standby"
        home.mkdir()
        make_private(addresses(home).sockets)
        make_private(home / "log")
        stack.callback(shutil.rmtree, addresses(home).sockets, ignore_errors=True)
        stack.callback(self._second.stop)
        self._copy()

    def _copy(self) -> None:
        first, second = self._first, self._second
        user = server_user(first.data)
        make_for(second.data, user)
        from_ = ["-h", str(first.sockets), "-p", str(POSTGRES_PORT), "-U", "postgres"]
        into = ["-D", str(second.data), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        argv = [str(postgres_program("pg_basebackup")), *from_, *into]
        child = Child("pg_basebackup", argv, self.home / "copies.log", cwd=second.data, user=user)
        child.start()
        if child.wait(timedelta(seconds=_COPY_S)) != 0:
            child.kill()
            raise NotReady(f"no copy of the database\n{child.log_tail()}")
        second.launch()
        if self._synchronous:
            # Only now, or no commit would end before the copy follows; it did not get this setting with the data.
            self._ask(first, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            self._ask(first, "SELECT pg_reload_conf()")
        eventually(self.followed, within=_COPY_S)

    def _socket(self) -> str:
        return f"unix:{self._first.sockets / f'.s.PGSQL.{POSTGRES_PORT}'}"

    def _ask(self, server: Postgres, query: str) -> Any:
        there = f"host={server.sockets} port={POSTGRES_PORT} user=postgres dbname=postgres"
        with closing(psycopg2.connect(there)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query)
                found = cursor.fetchone() if cursor.description else None
        return found[0] if found else None


class ReplicatedBroker(Installation):
    """Three Valkey servers, and Sentinel that decides which one counts. Callers wait until a replica has their message.

    Args:
        durability: how safely callers want their messages kept.
    """

    def __init__(self, home: Path, settings: dict[str, str], *, synchronous: bool = True, **more: Any) -> None:
        super().__init__(home, settings, **more)
        self.durability = "replica" if synchronous else "memory"

    @property
    def broker_url(self) -> str:
        """The Sentinels, which tell everybody where the primary is."""
        return self._guarded.url

    @property
    def worker_broker_url(self) -> str:
        """Likewise."""
        return self._guarded.url

    def lag(self) -> None:
        """Suspend the replicas, for less than Sentinel forgives."""
        for replica in self._replicas():
            replica.suspend()

    def lose(self) -> None:
        """Kill the primary."""
        replicas = self._replicas()
        self._lost: OwnValkey = self._guarded.kill_primary()
        for replica in replicas:
            replica.resume()

    def replaced(self) -> bool:
        """Whether Sentinel names another one."""
        return self._guarded.primary() != self._lost.port

    def restore(self) -> None:
        """Start the lost one as a replica."""
        self._guarded.follow(self._lost)

    def followed(self) -> bool:
        """Whether both replicas are connected."""
        with suppress(RedisError):
            return self._guarded.followed_by() == 2
        return False

    def _supervised(self) -> list[Server]:
        return [self.servers.postgres]

    def _replicas(self) -> list[OwnValkey]:
        primary = self._guarded.primary()
        return [server for server in self._guarded.servers if server.port != primary]

    def _replicate(self, stack: ExitStack) -> None:
        # The one that comes with the installation is not needed.
        self.servers.valkey.stop()
        self._guarded = stack.enter_context(Guarded(self.home / "guarded"))
        self.redis.close()
        self.redis = installation.connect_redis(self._guarded.url)
        stack.callback(self.redis.close)
