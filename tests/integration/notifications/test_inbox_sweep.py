"""What was accepted and has not come through is published again: each once, by whoever looks first,
and all of them in the end.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import (
    INBOX_ACCEPTED,
    INBOX_BACKLOG,
    INBOX_BEGUN,
    INBOX_MESSAGES,
    INBOX_SUBJECTS,
    Queue,
    Task,
)
from knocktwice_worker.diagnosis.inbox_age import oldest_s
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.webhooks import endpoints, events

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from knocktwice_worker.notifications.inbox.accepted import Inbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

LIMIT = 100


@pytest.fixture
def inbox(here: Services) -> Inbox:
    """One whose grace no test outlives, and which was filled long ago."""
    return replace(here.inbox, grace_s=3600)


def accepted_long_ago(inbox: Inbox, count: int) -> list[str]:
    ids = [f"m{n:04}" for n in range(count)]
    for place, id_ in enumerate(ids):
        inbox.redis.hset(INBOX_MESSAGES, id_, json.dumps({"task": Task.CANCEL, "message": {}}))
        inbox.redis.zadd(INBOX_ACCEPTED, {id_: place})
    return ids


def sweep(inbox: Inbox) -> list[str]:
    published: list[str] = []
    inbox.sweep(lambda _task, _message, id_: published.append(id_))
    return published


def test_the_oldest_come_first_and_the_next_sweep_goes_on_behind_them(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, LIMIT + 20)
    assert sweep(inbox) == ids[:LIMIT]
    assert sweep(inbox) == ids[LIMIT:]
    assert sweep(inbox) == []


def test_what_no_queue_has_had_is_published_as_new_and_the_next_time_as_a_repeat(inbox: Inbox) -> None:
    (old, new) = accepted_long_ago(inbox, 2)
    inbox.redis.zadd(INBOX_ACCEPTED, {old: 1, new: 0})
    inbox.redis.rpush(Queue.EVENTS.value, *["a long queue"] * 1_001)
    again: list[str] = []
    first: list[str] = []
    for _ in range(2):
        inbox.sweep(lambda _task, _message, id_: again.append(id_), lambda _task, _message, id_: first.append(id_))
    # A long queue may have the old one still, but not the new one.
    assert (again, first) == ([], [new])
    inbox.redis.delete(Queue.EVENTS.value)
    inbox.redis.zadd(INBOX_ACCEPTED, {old: 1, new: 1})
    inbox.sweep(lambda _task, _message, id_: again.append(id_), lambda _task, _message, id_: first.append(id_))
    assert (sorted(again), first) == ([old, new], [new])


def test_a_message_that_no_queue_has_had_is_as_old_as_its_id(inbox: Inbox) -> None:
    inbox.redis.zadd(INBOX_ACCEPTED, {str(uuid7()): 0, "no-uuid": 0})
    assert oldest_s(inbox.redis) < 3_600


def test_of_what_is_done_nothing_stays(here: Services, valkey: redis.Redis, valkey_url: str) -> None:
    """Nobody may ever ask again about those whom it was about."""
    with Client(valkey_url) as client:
        client.cancel(uuid7())
        client.record_clicked(uuid7())
    entries: Any = valkey.hgetall(INBOX_MESSAGES)
    assert len(entries) == valkey.zcard(INBOX_SUBJECTS) == 2
    for id_, raw in entries.items():
        entry = json.loads(raw)
        here.inbox.carry_out(Task(entry["task"]), id_.decode(), entry["message"], lambda _: None)
    left: Any = valkey.keys("knocktwice:inbox:*")
    assert set(left) <= {INBOX_BACKLOG.encode()}


def test_a_message_that_was_accepted_and_cannot_be_processed_is_told_to_webhooks(here: Services, clock: Clock) -> None:
    ids = [str(uuid7()), str(uuid7())]
    message = {"v": 1, "id": str(uuid7()), "recipients": [{"id": id_, "phone": "+16505550100"} for id_ in ids]}
    with here.engine.begin() as conn:
        endpoints.add(conn, "http://localhost:1/hooks", ["message.parked"], private=False)
    here.inbox.carry_out(Task.SEND_PUSH, "m1", message, here.accepted[Task.SEND_PUSH])
    clock.advance(timedelta(minutes=1))
    events.follow(here.engine)
    with here.engine.connect() as conn:
        (told,) = conn.execute(sa.text("SELECT type, data FROM webhook_events")).all()
        (number,) = conn.execute(sa.text("SELECT id FROM dead_letters")).scalars()
    assert told.type == "message.parked"
    assert told.data == {
        "number": number,
        "message": "m1",
        "task": "knocktwice.send_push",
        "reason": "content",
        "notifications": ids,
    }


def test_of_many_sweepers_each_message_has_one(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, LIMIT)
    with ThreadPoolExecutor(8) as pool:
        swept = list(pool.map(lambda _: sweep(inbox), range(8)))
    assert sorted(id_ for published in swept for id_ in published) == ids


def test_what_is_swept_and_lost_again_comes_after_another_grace(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, 3)
    assert sweep(inbox) == ids
    assert sweep(replace(inbox, grace_s=-1)) == ids


def test_behind_a_long_queue_nothing_is_published_again(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, 3)
    inbox.redis.lpush("knocktwice.push", *("x" for _ in range(2_000)))
    assert sweep(inbox) == ids
    inbox.redis.lpush("knocktwice.events", *("x" for _ in range(2_000)))
    impatient = replace(inbox, grace_s=-1)
    assert sweep(impatient) == []
    inbox.redis.delete("knocktwice.events")
    assert sweep(impatient) == ids


def test_a_message_is_parked_when_it_was_begun_again_and_again_and_never_ended(
    here: Services, valkey: redis.Redis
) -> None:
    inbox = replace(here.inbox, grace_s=0.001)

    class _Killed(BaseException):
        pass

    def die(_messages: object) -> None:
        raise _Killed

    def fail(_messages: object) -> None:
        raise ConnectionError

    def again(work: object) -> None:
        inbox.carry_out(Task.CANCEL, "m1", {"v": 1}, work, came_again=True)  # type: ignore[arg-type]

    def a_second_later() -> None:
        count, at = bytes(valkey.hget(INBOX_BEGUN, "m1")).split()  # type: ignore[arg-type]
        valkey.hset(INBOX_BEGUN, "m1", f"{int(count)} {int(at) - 1}")

    accepted_long_ago(inbox, 2)
    valkey.hset(INBOX_MESSAGES, "m1", "{}")
    for _ in range(10):
        with pytest.raises(ConnectionError):
            again(fail)
    for _ in range(4):
        with pytest.raises(_Killed):
            again(die)
        a_second_later()
    again(die)
    assert not valkey.hexists(INBOX_MESSAGES, "m1")
    assert not valkey.hexists(INBOX_BEGUN, "m1")
    with here.engine.connect() as conn:
        reason = conn.exec_driver_sql("SELECT reason FROM dead_letters WHERE message_id = 'm1'").scalar_one()
    assert reason == "ended its worker each time it was tried: 5 times"
    # Tries of several workers at one time are no deaths.
    valkey.hset(INBOX_MESSAGES, "m1", "{}")
    patient = replace(inbox, grace_s=3600)
    for _ in range(10):
        with pytest.raises(_Killed):
            patient.carry_out(Task.CANCEL, "m1", {"v": 1}, die, came_again=True)


def test_a_copy_of_a_parked_message_ends_no_more_workers_and_a_replayed_one_is_carried_out(inbox: Inbox) -> None:
    done: list[object] = []

    def copy_comes() -> None:
        inbox.carry_out(Task.CANCEL, "m1", {"v": 1}, done.extend, came_again=True)

    inbox.park("m1", Task.CANCEL, "ended its worker each time it was tried: 5 times", {"v": 1})
    copy_comes()
    assert done == []
    assert not inbox.redis.exists(INBOX_BEGUN), "nobody else would remove it"
    with inbox.engine.connect() as conn:
        (parked,) = dead_letters.page(conn, limit=2)
    inbox.replay(parked)
    copy_comes()
    assert done == [{"v": 1}]
    # One that the broker has lost, and that was never parked, is work like any other.
    inbox.redis.flushall()
    copy_comes()
    assert done == [{"v": 1}] * 2


def test_of_messages_that_come_again_those_go_together_that_were_never_begun(inbox: Inbox) -> None:
    ids = accepted_long_ago(inbox, 4)
    assert inbox.begin_again([*ids, "done-before"]) == ids
    # The worker died of one of them.
    assert inbox.begin_again(ids) == []
    inbox.has_ended(ids[:1])
    assert inbox.begin_again([ids[0], *ids]) == ids[:1]
    # Alone it has as many tries as there are left.
    tried: list[object] = []

    def die(messages: Sequence[object]) -> None:
        tried.append(messages)
        sys.exit()

    for begun in range(1, 4):
        inbox.redis.hset(INBOX_BEGUN, ids[1], f"{begun} 0")
        with pytest.raises(SystemExit):
            inbox.carry_out(Task.CANCEL, ids[1], {}, die, came_again=True)
    inbox.redis.hset(INBOX_BEGUN, ids[1], "4 0")
    inbox.carry_out(Task.CANCEL, ids[1], {}, die, came_again=True)
    assert len(tried) == 3
    assert not inbox.redis.hexists(INBOX_MESSAGES, ids[1])


def test_one_that_came_again_and_was_never_begun_waits_for_no_other(inbox: Inbox) -> None:
    first, second = accepted_long_ago(inbox, 2)
    both, met = threading.Barrier(2, timeout=30), []

    def work(_messages: Sequence[object]) -> None:
        met.append(both.wait())

    with ThreadPoolExecutor() as pool:
        for id_ in (first, second):
            pool.submit(inbox.carry_out, Task.CANCEL, id_, {}, work, came_again=True)
    assert len(met) == 2
