"""A silent push takes the shown one away: once, to every device that got it, and never in the way of anything."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Queue, Task
from knocktwice_worker.sandbox import Answer, Rule
from support.ports import free_port

if TYPE_CHECKING:
    import redis

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock


@pytest.fixture
def reserved(working: Services) -> list[str]:
    """Somebody with a silent phone and a removed app is to be texted."""
    made = parse_batch(
        {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 0}],
            "recipients": [
                {"id": str(uuid7()), "registrations": ["silent-1", "silent-2", "gone-1"], "phone": "+16505550100"}
            ],
        }
    )
    working.pushes.send(made)
    return working.fallback.check([str(recipient.id) for recipient in made.recipients])


@pytest.fixture
def texted(working: Services, reserved: list[str]) -> list[str]:
    """They were texted."""
    return working.later_steps.send(reserved)


def _noted(here: Services) -> list[Any]:
    with here.engine.connect() as conn:
        query = "SELECT step, inputs FROM decisions WHERE verdict = 'withdrawn'"
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_every_device_that_got_the_push_takes_it_away(working: Services, sandbox: Sandbox, texted: list[str]) -> None:
    working.withdrawals.withdraw(texted)
    assert {p.registration for p in sandbox.pushes() if p.withdrawn_at} == {"silent-1", "silent-2"}
    assert _noted(working) == [(0, {"devices": 2, "told": 2})]


def test_it_is_sent_once(working: Services, sandbox: Sandbox, texted: list[str]) -> None:
    working.withdrawals.withdraw(texted)
    before = sandbox.requests("push")
    working.withdrawals.withdraw(texted)
    assert (sandbox.requests("push"), len(_noted(working))) == (before, 1)


def test_a_provider_that_does_not_answer_changes_nothing(
    working: Services, sandbox: Sandbox, texted: list[str]
) -> None:
    sandbox.stop()
    working.withdrawals.withdraw(texted)
    assert _noted(working) == [(0, {"devices": 2, "told": 0})]


def test_who_was_not_pushed_has_nothing_to_withdraw(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", answer=Answer(error_code="UNREGISTERED")))
    working.withdrawals.withdraw([str(uuid7())])
    assert sandbox.requests("push") == 0
    assert _noted(working) == []


def _send_sms(here: Services, ids: list[str], **environment: str) -> str:
    """Run the task in a process of its own, as a worker does; return what it logged."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys; from knocktwice_worker import tasks; tasks.send_sms(sys.argv[1:])", *ids],
        env={
            **os.environ,
            "KNOCKTWICE_DATABASE_URL": str(here.settings.database_url),
            "KNOCKTWICE_BROKER_URL": str(here.settings.broker_url),
            "KNOCKTWICE_HOME": str(here.settings.home),
            "KNOCKTWICE_SECRET": "test",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return told.stdout + told.stderr


@pytest.mark.parametrize("wanted", [True, False], ids=["switched on", "switched off"])
def test_the_task_that_sends_the_sms_asks_for_it(
    working: Services, sandbox: Sandbox, valkey: redis.Redis, reserved: list[str], wanted: bool
) -> None:
    _send_sms(working, reserved, KNOCKTWICE_WITHDRAW=str(wanted))
    assert len(sandbox.texts()) == 1
    published = [json.loads(entry) for queue in Queue for entry in valkey.lrange(queue.value, 0, -1)]
    assert [message["headers"]["task"] for message in published] == [Task.WITHDRAW] * wanted
    for message in published:
        args, _, _ = json.loads(base64.b64decode(message["body"]))
        assert args == [reserved]


def test_without_a_broker_the_sms_is_sent_when_its_patience_is_over_and_the_push_stays(
    working: Services, sandbox: Sandbox, reserved: list[str], clock: Clock
) -> None:
    clock.advance(working.catch_up.patience)
    told = _send_sms(working, reserved, KNOCKTWICE_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert "pushes not withdrawn" in told
    assert len(sandbox.texts()) == 1
    with working.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT state FROM notifications")).scalars().all() == ["texted"]
    assert _noted(working) == []
