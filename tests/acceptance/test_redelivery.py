"""Every task is safe to receive again: early, late, twice at once, and after its work was done."""

from __future__ import annotations

import itertools
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import Celery

from knocktwice import Push, Recipient, Sms
from knocktwice.testing import RecordingClient
from knocktwice_shared.names import ROUTES, Task, key_name
from support import task_events
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from support.clock import Clock
    from support.system import System

DELAY = timedelta(minutes=10)

_numbers = (f"+1650555{n:04}" for n in itertools.count(600))


class Queues:
    """Puts messages on the queues, as a broker does that delivers again."""

    def __init__(self, system: System, heard: dict[str, list[str]]) -> None:
        self._system = system
        self._heard = heard
        self._app = Celery(broker=system.broker_url)

    def put(self, task: Task, argument: object, *, times: int = 3) -> None:
        """Publish a task several times at once, and return when the worker has finished all."""
        ids = [str(uuid4()) for _ in range(times)]
        for id_ in ids:
            self._app.send_task(task.value, args=[argument], task_id=id_, queue=ROUTES[task].value)
        eventually(lambda: all("task-succeeded" in self._heard.get(i, ()) for i in ids), why=self._system.logs)


@pytest.fixture
def queues(system: System) -> Iterator[Queues]:
    with task_events.heard(system.broker_url) as heard:
        yield Queues(system, heard)


def _message(number: str) -> tuple[dict[str, Any], UUID]:
    """A ``send_push`` message as the producer writes it, and the id of its notification."""
    client = RecordingClient()
    id_ = client.notify(
        registrations=[f"silent-{number}"],
        phone=number,
        push=Push("Your table is ready", f"We keep it for {number}."),
        sms=Sms(when="not_clicked", after=DELAY),
    )
    (notification,) = client.notifications
    content = {"push": {"title": notification.push.title, "body": notification.push.body}}
    recipient = {"id": str(id_), "registrations": [f"silent-{number}"], "phone": number}
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": DELAY.total_seconds()}]
    return {"v": 1, "id": str(notification.batch.id), "content": content, "plan": plan, "recipients": [recipient]}, id_


def _ended_with_one_of_each(system: System, id_: UUID, number: str) -> None:
    told = system.ended(id_)
    assert told.state == "texted"
    assert len(system.sandbox.pushes(f"silent-{number}")) == 1
    assert len(system.sandbox.texts(number)) == 1
    assert (
        system.count(
            "SELECT count(*) FROM decisions WHERE notification_id = :id AND verdict <> 'withdrawn'", id=str(id_)
        )
        == 1
    )


def test_send_push(system: System, clock: Clock, queues: Queues) -> None:
    number = next(_numbers)
    message, id_ = _message(number)
    queues.put(Task.SEND_PUSH, message)
    system.waiting(id_)
    queues.put(Task.SEND_PUSH, message)
    clock.advance(DELAY)
    system.ended(id_)
    queues.put(Task.SEND_PUSH, json.loads(json.dumps(message)))
    _ended_with_one_of_each(system, id_, number)


@pytest.mark.parametrize("task", [Task.RESUME_PUSH, Task.CHECK_FALLBACK, Task.SEND_SMS, Task.RECONCILE])
def test_tasks_that_carry_ids(system: System, clock: Clock, queues: Queues, task: Task) -> None:
    number = next(_numbers)
    id_ = system.client.notify_many(
        [Recipient(registrations=(f"silent-{number}",), phone=number)],
        push=Push("Your table is ready", f"We keep it for {number}."),
        sms=Sms(when="not_clicked", after=DELAY),
    )[0]
    system.waiting(id_)
    queues.put(task, [str(id_)])
    told = system.story(id_)
    assert told
    assert told.state == "active"
    clock.advance(DELAY)
    queues.put(task, [str(id_)])
    system.ended(id_)
    queues.put(task, [str(id_), str(id_), str(uuid4())])
    _ended_with_one_of_each(system, id_, number)


def test_record_events(system: System, queues: Queues) -> None:
    number = next(_numbers)
    id_ = system.client.notify_many(
        [Recipient(registrations=(f"silent-{number}",), phone=number)],
        push=Push("a", f"b {number}"),
        sms=Sms(when="not_clicked", after=DELAY),
    )[0]
    system.waiting(id_)
    receipt = {
        "notification": str(id_),
        "kind": "clicked",
        "at": "2026-11-21T09:30:00+00:00",
        "registration": f"silent-{number}",
    }
    queues.put(Task.RECORD_EVENTS, {"v": 1, "receipts": [receipt, receipt]})
    assert system.ended(id_).state == "reached"
    queues.put(Task.RECORD_EVENTS, {"v": 1, "receipts": [receipt]})
    assert system.count("SELECT count(*) FROM events WHERE notification_id = :id", id=str(id_)) == 1
    assert (
        system.count(
            "SELECT count(*) FROM decisions WHERE notification_id = :id AND verdict <> 'withdrawn'", id=str(id_)
        )
        == 1
    )
    assert not system.sandbox.texts(number)


def test_cancel(system: System, queues: Queues) -> None:
    number = next(_numbers)
    message, id_ = _message(number)
    cancellation = {"v": 1, "ids": [str(id_)]}
    queues.put(Task.CANCEL, cancellation)
    queues.put(Task.SEND_PUSH, message)
    assert system.ended(id_).state == "cancelled"
    queues.put(Task.CANCEL, cancellation)
    assert not system.sandbox.pushes(f"silent-{number}")
    assert not system.sandbox.texts(number)


def test_a_cancellation_by_key_that_overtakes_its_notification(system: System, queues: Queues) -> None:
    number = next(_numbers)
    message, id_ = _message(number)
    # What the producer does first of all; its message is still on the way.
    system.redis.set(key_name("order-1"), str(id_), ex=60)
    system.client.cancel(key="order-1")
    eventually(lambda: system.count("SELECT count(*) FROM events WHERE notification_id = :id", id=str(id_)))
    queues.put(Task.SEND_PUSH, message)
    assert system.ended(id_).state == "cancelled"
    assert not system.sandbox.pushes(f"silent-{number}")


def test_update_audience(system: System, queues: Queues) -> None:
    def change(kind: str, minute: int, **fields: object) -> dict[str, object]:
        at = f"2026-11-21T09:{minute}:00+00:00"
        return {"v": 1, "changes": [{"change": kind, "at": at, "registration": "reg-1", **fields}]}

    queues.put(Task.UPDATE_AUDIENCE, change("unregister_device", 31))
    queues.put(Task.UPDATE_AUDIENCE, change("register_device", 30, user="eve"))
    assert system.count("SELECT count(*) FROM devices WHERE user_id = 'eve'") == 0
    queues.put(Task.UPDATE_AUDIENCE, change("register_device", 32, user="eve"))
    assert system.count("SELECT count(*) FROM devices WHERE user_id = 'eve'") == 1
