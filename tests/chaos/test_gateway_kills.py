"""The gateway killed at any line: what it answered is kept, and a request that is repeated notifies once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_worker.content.links.receipt_urls import ReceiptTokens, ReceiptUrls
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from support.forked_workers import ForkedWorkers
from support.killable_gateway import POINTS
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.system import System

CLIENTS, EACH, PER_BATCH = 6, 40, 25
SECRET = "test"


@dataclass(frozen=True)
class Asked:
    """One request, of an application or of a phone.

    Attributes:
        key: its ``Idempotency-Key``, if it notifies.
        receipts: the notifications whose receipts it brings.
    """

    path: str
    json: object = None
    key: str | None = None
    receipts: tuple[str, ...] = ()


@dataclass
class Installation:
    """A system with a gateway that may be killed.

    Attributes:
        ids: the notifications that each key's answers named.
        kept: the notifications whose receipts were answered.
    """

    system: System
    ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    kept: set[str] = field(default_factory=set)
    answers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        with self.system.engine.begin() as conn:
            self.key = keys.create(conn, "test", {Scope.NOTIFY}, secret=SECRET)

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.port}"

    def gateway(self, *options: str, program: str = "knocktwice_worker.cli", **environment: str) -> Child:
        """Start a gateway and wait until it answers."""
        env = {
            **self.system.environment,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "KNOCKTWICE_PUBLIC_URL": self.url,
            "KNOCKTWICE_GATEWAY_PER_S": "0",
            "KNOCKTWICE_GATEWAY_ADDRESS_PER_S": "0",
            **environment,
        }
        argv = [sys.executable, "-m", program, "gateway", "--port", str(self.port), *options]
        child = Child("gateway", argv, self.system.home / "gateway.log", env=env)
        child.start()
        eventually(lambda: not child.alive or self._answers(), why=child.log_tail)
        assert child.alive, child.log_tail(40)
        return child

    def ask(self, requests: Sequence[Asked]) -> None:
        """Send requests one after the other, until the gateway is gone."""
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            for asked in requests:
                own = {"Idempotency-Key": asked.key} if asked.key else {}
                try:
                    answer = client.post(asked.path, json=asked.json, headers=own)
                except httpx.TransportError:
                    return
                self._note(asked, answer)

    def _note(self, asked: Asked, answer: httpx.Response) -> None:
        assert answer.is_success, answer.text
        if asked.key:
            self.ids[asked.key] |= set(answer.json()["ids"])
        self.kept |= set(asked.receipts)
        self.answers.release()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False

    def arrived(self) -> tuple[set[str], set[str]]:
        """Let a worker do what is queued; return the notifications that there are then, and those with a receipt."""
        with ForkedWorkers(self.system.environment, self.system.home) as forked_workers:
            worker = forked_workers.fork()
            eventually(lambda: self.system.redis.hlen("knocktwice:inbox:messages") == 0, why=worker.log)
        with self.system.engine.connect() as conn:
            notified = {str(id_) for id_ in conn.execute(sa.text("SELECT id FROM notifications")).scalars()}
            reported = {str(id_) for id_ in conn.execute(sa.text("SELECT notification_id FROM events")).scalars()}
        return notified, reported


@pytest.fixture
def here(system: System) -> Installation:
    """An empty installation."""
    return Installation(system)


def _traffic(here: Installation) -> list[list[Asked]]:
    """Return what each client sends: by turns a notification, a receipt and a batch of receipts."""
    urls = ReceiptUrls(here.url, ReceiptTokens([SECRET.encode()], timedelta(days=1)))

    def receipt() -> tuple[str, str]:
        id_ = str(uuid7())
        return id_, urls.url(id_, "phone", now=time.time(), ttl_s=600)

    def asked(client: int, n: int) -> Asked:
        if n % 3 == 0:
            key = f"{client}-{n}"
            return Asked("/v1/notifications", {"user": key, "push": {"title": "a", "body": "b"}}, key)
        if n % 3 == 1:
            id_, address = receipt()
            return Asked(f"{address.removeprefix(here.url)}/delivered", receipts=(id_,))
        some = [receipt() for _ in range(PER_BATCH)]
        told = [{"receipt": address, "kind": "clicked"} for _, address in some]
        return Asked("/v1/receipts", {"receipts": told}, receipts=tuple(id_ for id_, _ in some))

    return [[asked(client, n) for n in range(EACH)] for client in range(CLIENTS)]


def _check(here: Installation, asked: Sequence[Asked]) -> None:
    """What was answered has arrived, and what was asked again and again is there once."""
    notified, reported = here.arrived()
    assert {key: len(ids) for key, ids in here.ids.items()} == {one.key: 1 for one in asked if one.key}
    assert notified == set().union(*here.ids.values())
    assert here.kept == {id_ for one in asked for id_ in one.receipts}
    assert here.kept <= reported


@pytest.mark.parametrize("point", list(POINTS))
def test_a_gateway_killed_anywhere_keeps_what_it_answered(here: Installation, point: str) -> None:
    traffic = _traffic(here)
    doomed = here.gateway(program="support.killable_gateway", KILL_AT=point)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(here.ask, traffic))
        assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, (
            f"it never came to this point\n{doomed.log_tail()}"
        )
        answered, kept = dict(here.ids), set(here.kept)
        assert answered
        assert kept
        successor = here.gateway()
        # As applications and phones do: what had no answer, and, because they may be unsure, what had one.
        list(clients.map(here.ask, traffic))
    successor.kill()
    _check(here, [one for client in traffic for one in client])


def test_what_was_answered_and_is_not_asked_again_is_kept(here: Installation) -> None:
    traffic = _traffic(here)
    gateway = here.gateway()
    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [clients.submit(here.ask, one) for one in traffic]
        for _ in range(CLIENTS * 5):
            assert here.answers.acquire(timeout=60)
        gateway.kill()
        for one in asking:
            one.result()
    assert len(here.ids) < CLIENTS * EACH / 3
    notified, reported = here.arrived()
    assert set().union(*here.ids.values()) <= notified
    assert here.kept <= reported


def _serving(gateway: Child) -> set[int]:
    """Return the processes that share a gateway's port."""
    serving = set()
    for child in psutil.Process(gateway.pid).children():
        # One that was killed has no command line any more.
        with suppress(psutil.NoSuchProcess):
            if "--multiprocessing-fork" in child.cmdline():
                serving.add(child.pid)
    return serving


def test_one_of_several_processes_is_killed_and_another_takes_its_place(here: Installation) -> None:
    traffic = _traffic(here)
    gateway = here.gateway("--processes", "2")
    before = _serving(gateway)
    assert len(before) == 2
    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [clients.submit(here.ask, one) for one in traffic]
        for _ in range(CLIENTS * 5):
            assert here.answers.acquire(timeout=60)
        os.kill(min(before), signal.SIGKILL)
        for one in asking:
            one.result()
        eventually(lambda: len(_serving(gateway) - before) == 1, why=gateway.log_tail)
        list(clients.map(here.ask, traffic))
    gateway.stop()
    _check(here, [one for client in traffic for one in client])


def test_processes_end_with_the_one_that_started_them(here: Installation) -> None:
    gateway = here.gateway("--processes", "2")
    processes = [psutil.Process(pid) for pid in _serving(gateway)]
    # Not the group: only the one that looks after the others.
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait(timedelta(seconds=60))
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    here.gateway().kill()
