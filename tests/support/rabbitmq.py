"""A RabbitMQ of a test's own: one node or a cluster on 127.0.0.1, to be killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from amqp import AMQPError
from kombu import Connection
from kombu.exceptions import KombuError

from support.own_process import OwnProcess
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

#: Debian's ``rabbitmq-server`` of this name insists on its system user; these scripts run as anybody.
SCRIPTS = "/usr/lib/rabbitmq/bin"
PROGRAM = shutil.which("rabbitmq-server", path=SCRIPTS) or shutil.which("rabbitmq-server")


def needs_rabbitmq() -> None:
    """Skip a test where there is no RabbitMQ, and say so; in CI fail."""
    if PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("no RabbitMQ: .ci/run installs it")
        pytest.skip("no RabbitMQ: apt install rabbitmq-server")


@dataclass
class Names:
    """Erlang's own name server (epmd), private to a test, so that no other node of the machine is met.

    Attributes:
        folder: for the cookie by which nodes know each other.
    """

    folder: Path
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("knocktwice-test")
        cookie.chmod(0o400)
        self._process = subprocess.Popen(
            [str(shutil.which("epmd")), "-address", "127.0.0.1", "-port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class RabbitMq(OwnProcess):
    """A node.

    Attributes:
        names: where it registers.
        name: its own.
        port: where it listens.
    """

    names: Names
    name: str = "knocktwice"
    port: int = field(default_factory=free_port)
    _dist: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """As kombu takes it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def folder(self) -> Path:
        """For its data and logs."""
        return self.names.folder / self.name

    def begin(self) -> None:
        """Start the node on the data it left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.file.level = warning\ndisk_free_limit.absolute = 50MB\n"
        )
        self._begin([str(PROGRAM)], self.folder / "log", self._environment())

    def start(self) -> None:
        """Start the node, and return when it answers."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Return when the node answers."""
        eventually(self._answers, within=180, why=lambda: (self.folder / "log").read_text()[-3000:])

    def ctl(self, *words: str, tool: str = "rabbitmqctl") -> str:
        """Run one of RabbitMQ's own commands on the node; return what it says."""
        done = subprocess.run(
            [f"{SCRIPTS}/{tool}", "-q", "-n", f"{self.name}@localhost", *words],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        own = {
            "HOME": str(self.names.folder),
            "ERL_EPMD_PORT": str(self.names.port),
            "RABBITMQ_NODENAME": f"{self.name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # Small: many tests share a machine, and each scheduler of Erlang spins while it waits.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +S 1:1 +sbwt none",
        }
        return kept | own

    def _answers(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=0, interval_start=0, interval_step=0)
        except (OSError, AMQPError, KombuError):
            return False
        return True


@dataclass
class Cluster:
    """Three nodes that know each other, so that each queue has three replicas.

    Attributes:
        folder: for their data.
    """

    folder: Path

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        with ExitStack() as stack:
            names = stack.enter_context(Names(self.folder))
            self.nodes = [RabbitMq(names, f"node{number}") for number in (1, 2, 3)]
            for node in self.nodes:
                stack.callback(node.kill)
                node.begin()
            first, *others = self.nodes
            first.wait()
            for node in others:
                node.wait()
                node.ctl("stop_app")
                node.ctl("reset")
                node.ctl("join_cluster", f"{first.name}@localhost")
                node.ctl("start_app")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """All nodes, as kombu takes them."""
        return ";".join(node.url for node in self.nodes)

    def leader(self, queue: str) -> RabbitMq:
        """Return the node that leads a queue."""
        rows = [line.split("\t") for line in self.nodes[0].ctl("list_queues", "name", "leader").splitlines()]
        leads = dict(row for row in rows if len(row) == 2)
        return next(node for node in self.nodes if leads[queue] == f"{node.name}@localhost")
