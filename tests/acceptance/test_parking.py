"""What a worker cannot process is parked with its reason, and everything behind it goes on."""

from __future__ import annotations

import base64
import itertools
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from knocktwice import Push, Recipient, Sms
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_MESSAGES, Queue, Task
from support.system import eventually

if TYPE_CHECKING:
    from support.system import System

_numbers = (f"+1650555{n:04}" for n in itertools.count(800))


def _envelope(message_id: str, task: str | None, arguments: object, **changes: Any) -> dict[str, Any]:
    """A message as kombu keeps it in Redis; ``changes`` replace parts of it."""
    body = base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode()
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": message_id, "task": task, "lang": "py", "argsrepr": "()", "kwargsrepr": "{}"},
        "properties": {
            "delivery_tag": str(uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": Queue.PUSH.value},
            "body_encoding": "base64",
            "correlation_id": message_id,
        },
    } | changes


def _batch(**changes: object) -> dict[str, object]:
    return {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "recipients": [{"id": str(uuid7()), "user": "u"}],
    } | changes


def _letter(system: System, message_id: str | None, since: int) -> str:
    """Wait for the dead letter of a message and return its reason."""
    found = "SELECT count(*) FROM dead_letters WHERE id > :since AND message_id IS NOT DISTINCT FROM :id"
    eventually(lambda: system.count(found, since=since, id=message_id), why=system.logs)
    with system.engine.connect() as conn:
        query = "SELECT reason FROM dead_letters WHERE id > %s AND message_id IS NOT DISTINCT FROM %s"
        rows = conn.exec_driver_sql(query, (since, message_id)).all()
    assert len(rows) == 1
    return str(rows[0].reason)


def _last(system: System) -> int:
    return system.count("SELECT coalesce(max(id), 0) FROM dead_letters")


def _still_works(system: System) -> None:
    number = next(_numbers)
    (id_,) = system.client.notify_many(
        [Recipient(registrations=(f"gone-{number}",), phone=number)],
        push=Push("a", f"for {number}"),
        sms=Sms(after=timedelta()),
    )
    assert system.ended(id_).state == "texted"
    eventually(lambda: not any(system.redis.llen(queue.value) for queue in Queue), why=system.logs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"headers": {}}, "no id header"),
        ({"headers": None}, "no id header"),
        ({"body": "this is no base64"}, "cannot be"),
        ({"body": base64.b64encode(b"this is no JSON").decode()}, "cannot be"),
        ({"content-type": "application/x-python-serialize"}, "ContentDisallowed"),
    ],
    ids=["no headers", "null headers", "not base64", "not JSON", "pickle"],
)
def test_what_is_no_message_of_celerys(system: System, changes: dict[str, Any], reason: str) -> None:
    before, message_id = _last(system), str(uuid7())
    envelope = _envelope(message_id, Task.SEND_PUSH.value, [_batch()]) | changes
    system.redis.lpush(Queue.PUSH.value, json.dumps(envelope))
    assert reason in _letter(system, None if "headers" in changes else message_id, before)
    _still_works(system)


@pytest.mark.parametrize("raw", ["", "no JSON", "7", "[]", "{}", '{"properties": {}}', '{"properties": 1, "body": 2}'])
def test_what_is_no_message_at_all_is_lost_and_the_worker_goes_on(system: System, raw: str) -> None:
    system.redis.lpush(Queue.PUSH.value, raw)
    _still_works(system)
    assert all(worker.alive for worker in system.workers)


def test_a_task_nobody_knows(system: System) -> None:
    before, message_id = _last(system), str(uuid7())
    system.redis.lpush(Queue.PUSH.value, json.dumps(_envelope(message_id, "knocktwice.fly_to_mars", [{}])))
    assert "knocktwice.fly_to_mars" in _letter(system, message_id, before)
    _still_works(system)


@pytest.mark.parametrize(
    ("task", "message", "reason"),
    [
        (Task.SEND_PUSH, _batch(v=2), "v: is 2; this side speaks version 1"),
        (Task.SEND_PUSH, _batch(recipients=[]), "recipients: has 0 items"),
        (Task.SEND_PUSH, _batch(recipients=[{"user": "u"}] * 501), "recipients: has 501 items"),
        (Task.SEND_PUSH, _batch(surprise=1), "surprise: is not a field"),
        (Task.SEND_PUSH, "text", "message: must be a JSON object"),
        (Task.SEND_PUSH, None, "message: must be a JSON object"),
        (Task.RECORD_EVENTS, {"v": 1, "receipts": [{"notification": "x"}]}, "receipts[0]"),
        (Task.CANCEL, {"v": 1}, "ids: is empty"),
        (Task.UPDATE_AUDIENCE, {"v": 1, "changes": [{"change": "teleport"}]}, "changes[0].change"),
    ],
)
def test_a_message_the_contract_refuses(system: System, task: Task, message: object, reason: str) -> None:
    before, message_id = _last(system), str(uuid7())
    # It was accepted, by a producer that knows no better, so it is in the inbox as well.
    system.redis.hset(INBOX_MESSAGES, message_id, json.dumps({"task": task.value, "message": message}))
    system.redis.lpush(Queue.PUSH.value, json.dumps(_envelope(message_id, task.value, [message])))
    assert reason in _letter(system, message_id, before)
    eventually(lambda: not system.redis.hexists(INBOX_MESSAGES, message_id), why=system.logs)
    _still_works(system)


@pytest.mark.parametrize("task", [Task.RESUME_PUSH, Task.CHECK_FALLBACK, Task.SEND_SMS, Task.RECONCILE])
def test_ids_that_are_none_fail_and_go(system: System, task: Task) -> None:
    # Nobody but us sends these; whatever arrives, there are no rows behind it to be lost.
    for ids in ("text", 7, None, ["no uuid"], [None], {"a": 1}):
        system.redis.lpush(Queue.PUSH.value, json.dumps(_envelope(str(uuid7()), task.value, [ids])))
    _still_works(system)


def test_what_is_parked_can_be_looked_at(system: System) -> None:
    before, message_id = _last(system), str(uuid7())
    system.redis.lpush(
        Queue.PUSH.value, json.dumps(_envelope(message_id, Task.SEND_PUSH.value, [_batch(v=9, note="nul \0 \ud83d")]))
    )
    _letter(system, message_id, before)
    with system.engine.connect() as conn:
        query = "SELECT task, payload FROM dead_letters WHERE message_id = %s"
        row = conn.exec_driver_sql(query, (message_id,)).one()
    assert row.task == Task.SEND_PUSH.value
    assert json.loads(row.payload)["v"] == 9
