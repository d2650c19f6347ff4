"""SIGTERM ends a worker within its grace, whatever its servers do meanwhile,
and what it left is done by the next one.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from knocktwice import Recipient
from support.hanging_servers import hanging
from support.system import PUSH, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.server import Server
    from knocktwice_worker.embedded.servers import EmbeddedServers
    from support.system import System

GRACE_S = 3.0
#: Only a worker that hangs needs so long.
HANGS = timedelta(seconds=60)


@contextmanager
def flapping(server: Server) -> Iterator[None]:
    """Hang a server and let it go on, over and over."""
    over = threading.Event()

    def flap() -> None:
        while not over.is_set():
            with hanging(server):
                over.wait(0.4)
            over.wait(0.1)

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("trouble", ["postgres hangs", "valkey hangs", "both flap", "valkey is gone"])
def test_a_worker_ends_within_its_grace_while_its_servers_do_not_answer(
    system: System, doomed: EmbeddedServers, trouble: str
) -> None:
    worker = system.start_worker(KNOCKTWICE_STOP_GRACE_S=str(GRACE_S), KNOCKTWICE_LEASE_S="60")
    first = system.client.notify_many([Recipient(registrations=("silent-1",))], push=PUSH)[0]
    system.ended(first)
    ids = [system.client.notify_many([Recipient(registrations=(f"silent-{n}",))], push=PUSH)[0] for n in range(20)]
    postgres, valkey = doomed.postgres, doomed.valkey
    match trouble:
        case "postgres hangs":
            around = hanging(postgres)
        case "valkey hangs":
            around = hanging(valkey)
        case "both flap":
            around = flapping(postgres)
        case _:
            valkey.kill()
            around = hanging()
    with around, flapping(valkey) if trouble == "both flap" else hanging():
        psutil.Process(worker.pid).send_signal(signal.SIGTERM)
        assert worker.wait(HANGS) is not None, system.logs()
    valkey.start()
    system.start_worker()
    for id_ in ids:
        assert system.ended(id_).state == "pushed", system.logs()
    eventually(lambda: system.redis.hlen("knocktwice:inbox:messages") == 0, why=system.logs)
