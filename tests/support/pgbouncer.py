"""A real PgBouncer in transaction mode in front of the tests' PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg2
import sqlalchemy as sa

from support.ports import free_port
from support.relay import Relay
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

#: Debian installs it where an ordinary user's PATH does not look.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class PgBouncer:
    """A pooler on 127.0.0.1 with few sessions, so that they pass from hand to hand.

    Attributes:
        folder: for its files; others may enter it.
        behind: the database's own URL.
        sessions: at most, for each database.
    """

    folder: Path
    behind: str
    sessions: int = 2
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        real = sa.make_url(self.behind)
        # PgBouncer refuses to run as root, and only root may enter the folder of the embedded server's socket.
        socket = f"{real.query['host']}/.s.PGSQL.{real.query['port']}"
        self._relay = Relay(lambda: asyncio.open_unix_connection(socket))
        self._relay.__enter__()
        self.folder.mkdir(mode=0o755)
        file = self.folder / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._relay.port} user={real.username}\n"
            f"[pgbouncer]\npool_mode = transaction\ndefault_pool_size = {self.sessions}\nmax_client_conn = 400\n"
            # Databases of tests come and go.
            "server_idle_timeout = 5\nautodb_idle_timeout = 5\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
        )
        file.chmod(0o644)
        user = "nobody" if os.geteuid() == 0 else None
        self._log = (self.folder / "log").open("wb")
        with file.open("rb") as settings:
            # Handed over open, because nobody else may enter the folders of a test.
            self._process = subprocess.Popen(
                [str(PROGRAM), "/dev/stdin"], stdin=settings, stdout=self._log, stderr=self._log, user=user
            )
        try:
            eventually(self._answers, why=(self.folder / "log").read_text)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._relay.__exit__()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The same database by way of the pooler."""
        return self.way_to(self.behind)

    def way_to(self, database_url: str) -> str:
        """Return how a database of the same server is reached by way of the pooler."""
        real = sa.make_url(database_url)
        return f"postgresql+psycopg2://{real.username}@127.0.0.1:{self.port}/{real.database}"

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url.replace("+psycopg2", "")).close()
        except psycopg2.OperationalError:
            return False
        return True
