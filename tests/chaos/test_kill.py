"""A worker killed at any line: nothing is lost, and nobody gets two SMS."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Recipient, Sms, WhatsApp
from support.killable_worker import POINTS
from support.system import PUSH, eventually

if TYPE_CHECKING:
    from support.system import System

NUMBERS = [f"+1650555{n:04}" for n in range(200, 205)]
PEOPLE = [Recipient(registrations=(f"silent-{number}",), phone=number) for number in NUMBERS]
WHATSAPP = WhatsApp("HX" + "0" * 32, {"1": "table {{ table }}"})
SOON = Sms(when="not_clicked", after=timedelta(seconds=0.5))


@pytest.mark.parametrize("point", list(POINTS))
def test_a_worker_killed_anywhere_leaves_one_sms_each(system: System, point: str) -> None:
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    ids = system.client.notify_many(PEOPLE, push=PUSH, sms=SOON)
    code = doomed.wait(timedelta(seconds=60))
    assert code == -signal.SIGKILL, f"the worker never came to this point\n{system.logs()}"
    system.start_worker()
    for id_, number in zip(ids, NUMBERS, strict=True):
        assert system.ended(id_).state == "texted", system.logs()
        assert len(system.sandbox.texts(number)) == 1
    left = "SELECT count(*) FROM deliveries WHERE wake_at IS NOT NULL"
    eventually(lambda: system.count(left) == 0, why=system.logs)
    eventually(lambda: system.redis.hlen("knocktwice:inbox:messages") == 0, why=system.logs)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("send_push")])
def test_a_worker_killed_while_it_pushes_leaves_no_push_behind(system: System, point: str) -> None:
    # One message each, so that the worker is killed over several that it had put together.
    ids = [id_ for person in PEOPLE for id_ in system.client.notify_many([person], push=PUSH)]
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    system.start_worker()
    for id_, number in zip(ids, NUMBERS, strict=True):
        assert system.ended(id_).state == "pushed", system.logs()
        # A push that was repeated carries the same tag, so the phone shows one.
        assert {p.notification_id for p in system.sandbox.pushes(f"silent-{number}")} == {str(id_)}
        assert not system.sandbox.texts(number)


@pytest.mark.parametrize("point", [point for point in POINTS if not point.startswith("send_push")])
def test_a_worker_killed_at_a_whatsapp_step_leaves_one_message_of_each_step(system: System, point: str) -> None:
    people = [Recipient(phone=number, params={"table": number[-3:]}) for number in NUMBERS]
    steps: list[Sms | WhatsApp] = [
        WHATSAPP,
        Sms("Table {{ table }} is ready.", when="not_clicked", after=timedelta(seconds=0.5)),
    ]
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    ids = system.client.notify_many(people, steps=steps)
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    system.start_worker()
    for id_, number in zip(ids, NUMBERS, strict=True):
        told = system.ended(id_)
        assert [(step.step, step.channel, step.state) for step in told.steps] == [
            (1, "whatsapp", "sent"),
            (2, "sms", "sent"),
        ], system.logs()
        assert len(system.sandbox.texts(f"whatsapp:{number}")) == 1
        assert len(system.sandbox.texts(number)) == 1
