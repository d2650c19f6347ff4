"""``make rabbitmq TIMES=20``: the leader of a queue in RabbitMQ is killed under load, again and again.

Three nodes on one machine, two workers, and an application that notifies without a pause. In the end nobody may have
been forgotten, and nobody texted twice. It takes two minutes and a few seconds for each time, so it is no part of the
suite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice import Client, Sms
from knocktwice_shared.names import Queue
from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.servers import EmbeddedServers
from support.application import Application
from support.rabbitmq import Cluster
from support.system import PUSH, System, eventually

if TYPE_CHECKING:
    from uuid import UUID

#: Long enough for three nodes on a small machine.
_PATIENCE_S = 180.0
#: Seconds between two calls.
_PAUSE_S = 0.02
SMS = Sms("Come soon.", after=timedelta(0))


class Knocking(Application):
    """An application that notifies one person after the other.

    Attributes:
        accepted: number → notification and when the call returned, on the monotonic clock.
        longest_s: the longest call.
    """

    def __init__(self, system: System) -> None:
        super().__init__(Client(system.broker_url, state_url=system.state_url, timeout=2), _PAUSE_S)
        self.accepted: dict[str, tuple[UUID, float]] = {}
        self.longest_s = 0.0

    def knock(self) -> None:
        number, began = f"+1650{5_550_000 + len(self.accepted):07}", time.monotonic()
        id_ = self.client.notify(registrations=[f"silent-{number}"], phone=number, push=PUSH, sms=SMS)
        ended = time.monotonic()
        self.longest_s = max(self.longest_s, ended - began)
        self.accepted[number] = id_, ended


def _written_since(system: System, knocking: Knocking, since: float) -> bool:
    """Whether workers have taken a message that was accepted after a time."""
    new = [str(id_) for id_, at in list(knocking.accepted.values()) if at > since]
    return bool(system.count("SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=new))


def run(home: Path, times: int) -> bool:
    """Kill leaders; return whether nothing was lost and nothing said twice.

    Args:
        home: an empty folder.
    """
    with EmbeddedServers(home / "servers") as servers, Cluster(home / "rabbitmq") as cluster:
        engine = sa.create_engine(servers.database_url)
        migrations.upgrade(engine)
        engine.dispose()
        (home / "home").mkdir()
        with System(servers.database_url, cluster.url, home / "home", state_url=servers.broker_url) as system:
            for _ in range(2):
                system.start_worker()
            with Knocking(system) as knocking:
                eventually(lambda: _written_since(system, knocking, 0), within=_PATIENCE_S, why=system.logs)
                for time_ in range(times):
                    leader = cluster.leader(Queue.PUSH.value)
                    leader.kill()
                    at, knocking.longest_s = time.monotonic(), 0.0
                    eventually(lambda at=at: _written_since(system, knocking, at), within=_PATIENCE_S, why=system.logs)  # type: ignore[misc]
                    print(
                        f"{time_ + 1}: without {leader.name}; on again after {time.monotonic() - at:.1f} s, "
                        f"longest call {knocking.longest_s:.1f} s",
                        flush=True,
                    )
                    leader.start()
            for id_, _ in knocking.accepted.values():
                system.ended(id_)
            texts = Counter(text.to for text in system.sandbox.texts())
    lost = sum(texts[number] == 0 for number in knocking.accepted)
    twice = sum(texts[number] > 1 for number in knocking.accepted)
    print(f"{len(knocking.accepted):,} accepted; lost {lost}, texted twice {twice}")
    return lost == twice == 0


def main() -> int:
    """Run it from a command line."""
    options = argparse.ArgumentParser(prog="python -m oracle.rabbitmq_cluster", description=__doc__)
    options.add_argument("--times", type=int, default=20)
    return int(not run(Path(tempfile.mkdtemp(prefix="knocktwice-rabbitmq-")), options.parse_args().times))


if __name__ == "__main__":
    sys.exit(main())
