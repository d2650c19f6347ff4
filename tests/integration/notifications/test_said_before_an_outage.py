"""What was accepted before Redis went away counts for messages that a worker has in its hands meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from knocktwice import Client, Push, Sms
from knocktwice_shared.messages import Batch, parse_batch
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.config import Settings
from knocktwice_worker.services import Services
from support.own_valkey import OwnValkey
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

PUSH = Push("Your table is ready", "We keep it until 19:45.")
SMS = Sms("Your table is ready.", when="not_clicked", after=timedelta(minutes=5))


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[OwnValkey]:
    with OwnValkey(tmp_path / "valkey", {"appendfsync": "always"}) as valkey:
        yield valkey


@pytest.fixture
def client(doomed: OwnValkey) -> Iterator[Client]:
    with Client(doomed.url) as client:
        yield client


@pytest.fixture
def here(
    doomed: OwnValkey, settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    for name, value in sandbox.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    given = settings.model_dump(include={"database_url", "secret", "home"})
    built = Services(Settings(**given, broker_url=doomed.url))
    yield built
    built.close()


def in_hand(here: Services) -> Batch:
    """The accepted notification, as a worker has it that has taken it from its queue."""
    entries = [json.loads(raw) for raw in here.redis.hvals(INBOX_MESSAGES)]
    (message,) = [entry["message"] for entry in entries if entry["task"] == Task.SEND_PUSH]
    return parse_batch(message)


def test_a_device_that_was_registered_before_gets_the_push_and_nobody_is_texted_for_the_outage(
    client: Client, doomed: OwnValkey, here: Services, sandbox: Sandbox
) -> None:
    client.register_device("ada", "silent-ada")
    client.bind_phone("ada", "+16505550100")
    id_ = str(client.notify(user="ada", push=PUSH, sms=SMS))
    batch = in_hand(here)
    doomed.kill()
    here.pushes.send(batch)
    here.pushes.resume([id_])
    assert sandbox.pushes() == []
    doomed.start()
    here.pushes.resume([id_])
    assert [push.registration for push in sandbox.pushes()] == ["silent-ada"]
    assert sandbox.texts() == []


def test_what_was_cancelled_before_is_not_pushed(
    client: Client, doomed: OwnValkey, here: Services, sandbox: Sandbox
) -> None:
    id_ = client.notify(registrations=["silent-ada"], phone="+16505550100", push=PUSH, sms=SMS)
    batch = in_hand(here)
    client.cancel(id_)
    doomed.kill()
    here.pushes.send(batch)
    doomed.start()
    here.pushes.resume([str(id_)])
    assert sandbox.pushes() == []


def test_an_outage_is_not_waited_out_for_ever(
    client: Client, doomed: OwnValkey, here: Services, sandbox: Sandbox, clock: Clock
) -> None:
    id_ = client.notify(registrations=["silent-ada"], phone="+16505550100", push=PUSH, sms=SMS)
    batch = in_hand(here)
    doomed.kill()
    here.pushes.send(batch)
    assert sandbox.pushes() == []
    clock.advance(here.catch_up.patience)
    here.pushes.resume([str(id_)])
    assert [push.registration for push in sandbox.pushes()] == ["silent-ada"]


@pytest.fixture
def decided(client: Client, here: Services) -> str:
    """An SMS that has been decided and waits for its sender."""
    id_ = str(client.notify(phone="+16505550100", sms=Sms("Your table is ready.")))
    here.pushes.send(in_hand(here))
    assert here.fallback.check([id_]) == [id_]
    return id_


def test_what_was_cancelled_after_the_decision_is_not_texted(
    client: Client, doomed: OwnValkey, here: Services, sandbox: Sandbox, decided: str
) -> None:
    client.cancel(decided)
    doomed.kill()
    assert here.later_steps.send([decided]) == []
    doomed.start()
    assert here.later_steps.send([decided]) == []
    assert sandbox.texts() == []


def test_what_was_cancelled_while_a_claim_stood_still_is_not_texted(
    client: Client, doomed: OwnValkey, here: Services, sandbox: Sandbox, decided: str
) -> None:
    with ThreadPoolExecutor() as pool:
        with here.engine.begin() as conn:
            conn.exec_driver_sql("LOCK TABLE deliveries IN EXCLUSIVE MODE")
            sending, slow = pool.submit(here.later_steps.send, [decided]), Deadline.within(timedelta(seconds=1))
            eventually(partial(_waits_for_a_lock, here))
            client.cancel(decided)
            doomed.kill()
            eventually(lambda: slow.over)
        assert sending.result() == []
    doomed.start()
    assert here.later_steps.send([decided]) == []
    assert sandbox.texts() == []


def _waits_for_a_lock(here: Services) -> bool:
    with here.engine.connect() as conn:
        return bool(conn.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar())


def test_a_decided_text_goes_without_redis_when_its_patience_is_over(
    doomed: OwnValkey, here: Services, sandbox: Sandbox, decided: str, clock: Clock
) -> None:
    doomed.kill()
    clock.advance(here.catch_up.patience)
    assert here.later_steps.send([decided]) == [decided]
    assert len(sandbox.texts()) == 1
