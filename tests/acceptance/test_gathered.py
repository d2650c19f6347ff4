"""Messages that are worked on together: each is a task to Flower, and each has its own end."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from knocktwice import Recipient
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_MESSAGES, ROUTES, Queue, Task
from support import task_events
from support.system import PUSH, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from support.system import System

MANY = 120
_people = itertools.count(1)


@pytest.fixture
def system(installation: System) -> Iterator[System]:
    """An installation whose worker is started by the test, when its queues are full. What waits there is not swept."""
    installation.settings["KNOCKTWICE_INBOX_GRACE_S"] = "60"
    yield installation
    installation.stop_workers()


def _notify(system: System, count: int = MANY) -> list[UUID]:
    """Have people notified, by a message each."""
    with ThreadPoolExecutor(8) as pool:
        ids = pool.map(
            lambda n: system.client.notify_many([Recipient(registrations=(f"gathered-{n}",))], push=PUSH),
            [next(_people) for _ in range(count)],
        )
        return [id_ for (id_,) in ids]


def _transactions(system: System, ids: list[UUID]) -> int:
    """In how many transactions notifications were written."""
    return system.count(
        "SELECT count(DISTINCT xmin::text) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=ids
    )


def _nothing_is_left(system: System) -> None:
    def left() -> dict[str, int]:
        redis = system.redis
        return {
            **{queue.value: redis.llen(queue.value) for queue in Queue},
            "unacked": redis.hlen("unacked"),
            "index": redis.zcard("unacked_index"),
            "inbox": redis.hlen(INBOX_MESSAGES),
        }

    eventually(lambda: not any(left().values()), why=lambda: f"{left()} {system.logs()}")


def test_many_messages_take_few_transactions_and_flower_sees_each(system: System) -> None:
    ids = _notify(system)
    messages = {k if isinstance(k, str) else k.decode() for k in system.redis.hkeys(INBOX_MESSAGES)}
    assert len(messages) == MANY
    with task_events.heard(system.broker_url) as heard:
        system.start_worker()
        assert {system.ended(id_).state for id_ in ids} == {"pushed"}
        _nothing_is_left(system)
        eventually(lambda: sum("task-succeeded" in kinds for kinds in heard.values()) >= MANY, why=system.logs)
    one_of_each = ["task-received", "task-started", "task-succeeded"]
    assert {id_: heard.get(id_) for id_ in messages} == dict.fromkeys(messages, one_of_each)
    assert _transactions(system, ids) < MANY / 4
    assert len(system.sandbox.pushes()) == MANY


def test_one_that_is_refused_does_not_take_the_others_along(system: System) -> None:
    ids = _notify(system, 20)
    bad = str(uuid7())
    message = {"v": 1, "id": "no uuid", "recipients": []}
    system.redis.hset(INBOX_MESSAGES, bad, json.dumps({"task": Task.SEND_PUSH.value, "message": message}))
    Celery(broker=system.broker_url).send_task(
        Task.SEND_PUSH.value, args=[message], task_id=bad, queue=ROUTES[Task.SEND_PUSH].value
    )
    more = _notify(system, 20)
    system.start_worker()
    assert {system.ended(id_).state for id_ in ids + more} == {"pushed"}
    eventually(
        lambda: system.count("SELECT count(*) FROM dead_letters WHERE message_id = :id", id=bad), why=system.logs
    )
    _nothing_is_left(system)


def test_a_worker_that_is_stopped_leaves_nothing_half_done(system: System) -> None:
    ids = _notify(system)
    worker = system.start_worker()
    eventually(
        lambda: system.count(
            "SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=[*map(str, ids)]
        )
    )
    worker.stop()
    system.start_worker()
    assert {system.ended(id_).state for id_ in ids} == {"pushed"}
    _nothing_is_left(system)
    wanted = sorted(map(str, ids))
    pushed = [p.notification_id for p in system.sandbox.pushes() if p.notification_id in wanted]
    assert sorted(pushed) == wanted


def test_a_task_with_a_time_of_its_own_goes_celerys_way(system: System) -> None:
    system.start_worker()
    (first,) = _notify(system, 1)
    system.ended(first)
    # The worker is up and idle: what it does not hold back is done long before.
    eta = datetime.now(UTC) + timedelta(seconds=3)
    app, id_ = Celery(broker=system.broker_url), str(uuid7())
    message = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "recipients": [{"id": id_, "registrations": ["gathered-alone"]}],
    }
    app.send_task(Task.SEND_PUSH.value, args=[message], eta=eta, queue=ROUTES[Task.SEND_PUSH].value)
    eventually(
        lambda: system.count(
            "SELECT count(*) FROM notifications WHERE id = CAST(:id AS uuid) AND state = 'pushed'", id=id_
        ),
        why=system.logs,
    )
    # Not before its time.
    assert system.count(
        "SELECT count(*) FROM notifications WHERE id = CAST(:id AS uuid) AND created_at >= CAST(:eta AS timestamptz)",
        id=id_,
        eta=eta.isoformat(),
    )
