"""A silent push takes the shown one away: once, to every device that got it, and never in the way of anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Task
from knocktwice_worker import fallback, push, sms, tasks, withdraw
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services


@pytest.fixture
def texted(working: Services) -> list[str]:
    """Somebody with a silent phone and a removed app was texted."""
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
    push.send(working, made)
    reserved = fallback.check(working, [str(recipient.id) for recipient in made.recipients])
    return sms.send(working, reserved)


def _noted(here: Services) -> list[Any]:
    with here.engine.connect() as conn:
        query = "SELECT step, inputs FROM decisions WHERE verdict = 'withdrawn'"
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_every_device_that_got_the_push_takes_it_away(working: Services, sandbox: Sandbox, texted: list[str]) -> None:
    withdraw.withdraw(working, texted)
    assert {p.registration for p in sandbox.pushes() if p.withdrawn_at} == {"silent-1", "silent-2"}
    assert _noted(working) == [(0, {"devices": 2, "told": 2})]


def test_it_is_sent_once(working: Services, sandbox: Sandbox, texted: list[str]) -> None:
    withdraw.withdraw(working, texted)
    before = sandbox.requests("push")
    withdraw.withdraw(working, texted)
    assert (sandbox.requests("push"), len(_noted(working))) == (before, 1)


def test_a_provider_that_does_not_answer_changes_nothing(
    working: Services, sandbox: Sandbox, texted: list[str]
) -> None:
    sandbox.stop()
    withdraw.withdraw(working, texted)
    assert _noted(working) == [(0, {"devices": 2, "told": 0})]


def test_who_was_not_pushed_has_nothing_to_withdraw(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", answer=Answer(error_code="UNREGISTERED")))
    withdraw.withdraw(working, [str(uuid7())])
    assert sandbox.requests("push") == 0
    assert _noted(working) == []


@pytest.mark.parametrize("broken", [False, True], ids=["the broker takes it", "the broker is away"])
@pytest.mark.parametrize("wanted", [True, False], ids=["switched on", "switched off"])
def test_the_task_that_sends_the_sms_asks_for_it(
    working: Services, texted: list[str], monkeypatch: pytest.MonkeyPatch, wanted: bool, broken: bool
) -> None:
    asked: list[tuple[Task, list[str]]] = []

    def publish(task: Task, ids: list[str]) -> None:
        asked.append((task, ids))
        if broken:
            raise ConnectionError

    monkeypatch.setattr(tasks, "publish", publish)
    here = type(working)(working.settings.model_copy(update={"withdraw": wanted}))
    tasks._withdraw(here, texted)
    assert asked == ([(Task.WITHDRAW, texted)] if wanted else [])
