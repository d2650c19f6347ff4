"""The real gateway is killed while requests are under way: what it accepted is there, and a repeat notifies once."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.children import Child
from knocktwice_worker.gateway import keys
from knocktwice_worker.gateway.keys import Scope
from knocktwice_worker.services import secret

if TYPE_CHECKING:
    from pathlib import Path

    from knocktwice_worker.services import Services

KILLS, CLIENTS, EACH = 3, 8, 25


def _gateway(here: Services, port: int, log: Path) -> Child:
    env = os.environ | {
        "KNOCKTWICE_DATABASE_URL": str(here.settings.database_url),
        "KNOCKTWICE_BROKER_URL": str(here.settings.broker_url),
        "KNOCKTWICE_SECRET": secret(here.settings),
        "KNOCKTWICE_GATEWAY_PER_S": "0",
    }
    child = Child("gateway", [sys.executable, "-m", "knocktwice_worker", "gateway", "--port", str(port)], log, env=env)
    child.start()
    return child


def test_what_was_accepted_is_there_and_a_repeat_notifies_once(here: Services, tmp_path: Path) -> None:
    with here.engine.begin() as conn:
        key = keys.create(conn, "test", {Scope.NOTIFY}, secret=secret(here.settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pause, answered = threading.Event(), threading.Semaphore(0)
    ids: dict[str, set[str]] = defaultdict(set)

    def notify(client: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}) as http:
            for n in range(EACH):
                name = f"{client}-{n}"
                body = {"user": name, "push": {"title": "a", "body": "b"}}
                # As applications do: again and again with the same key, until it is accepted, and once more.
                accepted = 0
                while accepted < 2:
                    try:
                        answer = http.post("/v1/notifications", json=body, headers={"Idempotency-Key": name})
                    except httpx.TransportError:
                        pause.wait(0.02)
                        continue
                    if answer.status_code == 202:
                        ids[name].add(answer.json()["ids"][0])
                        accepted += 1
                        answered.release()
                    else:
                        assert answer.status_code == 503

    gateway = _gateway(here, port, tmp_path / "gateway.log")
    try:
        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(notify, client) for client in range(CLIENTS)]
            for _ in range(KILLS):
                for _ in range(20):
                    assert answered.acquire(timeout=120)
                gateway.kill()
                gateway = _gateway(here, port, tmp_path / "gateway.log")
            for one in running:
                one.result()
    finally:
        gateway.kill()
    assert all(len(given) == 1 for given in ids.values())
    kept = b"".join(here.redis.hvals(INBOX_MESSAGES)).decode()
    assert here.redis.hlen(INBOX_MESSAGES) == len(ids) == CLIENTS * EACH
    assert all(id_ in kept for given in ids.values() for id_ in given)
