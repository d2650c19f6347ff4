"""Numbers, registrations and texts are seen by the provider and by nobody who watches."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from knocktwice import Push, Recipient, Sms
from knocktwice_worker.sandbox import Answer, Rule
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.system import System

NUMBER, REGISTRATION, TEXT = "+16505550981", "silent-SECRETREGISTRATION", "SECRETTEXT"
SECRETS = (NUMBER, NUMBER[1:], "SECRET")


@pytest.fixture
def flower(system: System) -> Iterator[str]:
    """The address of the stock Flower, without any configuration of ours, its API open."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "knocktwice_worker", "flower", f"--port={port}"],
        env={**system.environment, "FLOWER_UNAUTHENTICATED_API": "true"},
        cwd=system.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait(30)


def _read(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own, on this machine
            return str(answer.read().decode())
    except OSError:
        return ""


def test_nobody_who_watches_sees_whom_or_what(system: System, flower: str) -> None:
    eventually(lambda: _read(f"{flower}/api/workers?refresh=true") not in ("", "{}"), why=system.logs)
    # Long enough to be asked about while it runs.
    system.sandbox.rule(Rule("push", answer=Answer(latency=6)))
    system.sandbox.rule(Rule("sms", answer=Answer(error_code=21211)))
    (id_,) = system.client.notify_many(
        [Recipient(registrations=(REGISTRATION,), phone=NUMBER, params={"name": TEXT})],
        push=Push(TEXT, "Hello {{ name }}"),
        sms=Sms(f"Dear {{{{ name }}}}, {TEXT}", after=timedelta()),
    )
    control = Celery(broker=system.broker_url).control
    running = eventually(lambda: [task for tasks in (control.inspect().active() or {}).values() for task in tasks])
    watched = [json.dumps(running, default=str), _read(f"{flower}/api/workers?refresh=true")]
    assert "1 notification" in watched[0]
    assert system.ended(id_).state == "failed"

    tasks = eventually(lambda: json.loads(_read(f"{flower}/api/tasks") or "{}"), why=system.logs)
    assert any(task["name"] == "knocktwice.send_push" for task in tasks.values())
    watched.append(json.dumps(tasks))
    watched += [_read(f"{flower}/{page}") for page in ("tasks", "workers", f"task/{next(iter(tasks))}")]
    watched += [worker.log_path.read_text() for worker in system.workers]
    assert all(watched)
    for secret in SECRETS:
        assert not [text[:2000] for text in watched if secret in text]
    keys = b" ".join(bytes(key) for key in system.redis.keys("*") if isinstance(key, bytes)).decode()
    assert not [secret for secret in SECRETS if secret in keys]
