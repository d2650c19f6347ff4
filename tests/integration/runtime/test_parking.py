"""A message that nobody can read is parked and done with; what cannot be parked at the moment stays with the broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import kombu
import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES
from knocktwice_worker.runtime.consumer import Consumer
from knocktwice_worker.services import process
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from knocktwice_worker.services import Services

QUEUE = "test.parking"


@pytest.fixture
def message(valkey_url: str) -> Iterator[Any]:
    """A message of an unknown task, as it comes from the broker, whose producer has left a copy in the inbox."""
    id_ = str(uuid7())
    with kombu.Connection(valkey_url) as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.put([], headers={"id": id_, "task": "knocktwice.fly_to_mars"})
        taken = queue.get(timeout=10)
        redis = taken.channel.client
        redis.hset(INBOX_MESSAGES, id_, json.dumps({"task": "knocktwice.fly_to_mars", "message": {}}))
        redis.zadd(INBOX_ACCEPTED, {id_: 0})
        yield taken


def park(message: Any) -> None:
    """Meet it as Celery's consumer does, of which nothing else is needed."""
    Consumer.on_unknown_task(object.__new__(Consumer), None, message, KeyError())


@pytest.mark.usefixtures("configured")
def test_an_unknown_task_is_parked_once_and_done_with(here: Services, valkey: Redis, message: Any) -> None:
    park(message)
    assert message.acknowledged
    assert not valkey.hlen("unacked")
    with here.engine.connect() as conn:
        found = conn.exec_driver_sql("SELECT message_id, task FROM dead_letters").all()
    assert [tuple(row) for row in found] == [(message.headers["id"], "knocktwice.fly_to_mars")]
    # The sweep would publish it again for ever.
    assert not valkey.hlen(INBOX_MESSAGES)
    assert not valkey.zcard(INBOX_ACCEPTED)


@pytest.mark.usefixtures("configured")
def test_what_cannot_be_parked_stays_with_the_broker(
    monkeypatch: pytest.MonkeyPatch, valkey: Redis, message: Any
) -> None:
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/nothing")
    process._services.clear()
    park(message)
    assert not message.acknowledged
    assert valkey.hlen("unacked") == 1
    assert valkey.hlen(INBOX_MESSAGES) == 1
