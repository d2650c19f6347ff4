"""A backlog is bounded: what fills it is refused by name, what stops messages is still taken, and room comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from knocktwice import BrokerUnavailable, Client, Push, QueueFull, Recipient
from knocktwice.envelope import Outgoing
from knocktwice_shared.names import INBOX_BACKLOG, INBOX_MESSAGES, INBOX_SUBJECTS, Task
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from knocktwice_worker.notifications.inbox.accepted import Inbox
    from knocktwice_worker.services import Services

PUSH = Push("Hello", "Is anybody there?")


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


@pytest.fixture
def inbox(here: Services) -> Inbox:
    """One that publishes nothing again."""
    return replace(here.inbox, grace_s=3600)


def limit(inbox: Inbox, **limits: int) -> None:
    """Have a worker with these settings sweep."""
    replace(inbox, **limits).sweep(lambda *_: None)  # type: ignore[arg-type]


def waiting(valkey: redis.Redis) -> dict[str, tuple[Task, Any]]:
    found: Any = valkey.hgetall(INBOX_MESSAGES)
    entries = {id_.decode(): json.loads(entry) for id_, entry in found.items()}
    return {id_: (Task(entry["task"]), entry["message"]) for id_, entry in entries.items()}


def work_off(inbox: Inbox, valkey: redis.Redis) -> None:
    for id_, (task, message) in waiting(valkey).items():
        inbox.done(task, [(id_, message)])


def fill(client: Client, most: int) -> int:
    """Notify until there is no room; return how many were accepted."""
    for count in range(most):
        try:
            client.notify(user=f"u-{count}", push=PUSH)
        except QueueFull:
            return count
    return most


def test_notifications_are_refused_first_and_what_decisions_wait_for_has_half_as_much_room_again(
    client: Client, inbox: Inbox, valkey: redis.Redis
) -> None:
    limit(inbox, most_messages=10)
    assert fill(client, 100) == 10
    with pytest.raises(QueueFull):
        client.tag_user("u-1", {"vip": True})
    with pytest.raises(QueueFull):
        client.blast({"tag": "vip", "exists": True}, key="sale", push=PUSH)
    client.cancel(uuid4())
    client.record_clicked(uuid4())
    client.set_marketing_consent("u-1", False, source="settings")
    client.unregister_device("token-1")
    client.erase_user("u-1")
    with pytest.raises(QueueFull) as caught:
        client.cancel(uuid4())
    assert isinstance(caught.value, BrokerUnavailable)
    said = str(caught.value)
    assert "KNOCKTWICE_BACKLOG_MESSAGES" in said
    assert "call again with the same key" in said
    assert len(waiting(valkey)) == 15
    work_off(inbox, valkey)
    assert fill(client, 100) == 10


def test_a_refused_message_leaves_no_trace_and_its_key_is_free_for_the_repeat(
    client: Client, inbox: Inbox, valkey: redis.Redis
) -> None:
    limit(inbox, most_messages=1)
    client.notify(user="u-1", push=PUSH)
    before = valkey.zcard(INBOX_SUBJECTS), valkey.llen("knocktwice.push"), valkey.hgetall(INBOX_BACKLOG)
    with pytest.raises(QueueFull):
        client.notify(user="u-2", push=PUSH, key="order-4711")
    after = valkey.zcard(INBOX_SUBJECTS), valkey.llen("knocktwice.push"), valkey.hgetall(INBOX_BACKLOG)
    assert after == before
    work_off(inbox, valkey)
    id_ = client.notify(user="u-2", push=PUSH, key="order-4711")
    ((_, message),) = waiting(valkey).values()
    assert message["recipients"][0]["id"] == str(id_)


def test_of_many_batches_those_with_room_are_accepted_and_the_others_named(
    client: Client, inbox: Inbox, valkey: redis.Redis
) -> None:
    limit(inbox, most_messages=30)
    with pytest.raises(QueueFull, match="20 messages were not accepted") as caught:
        client.notify_many([Recipient(user=f"u-{n}") for n in range(25_000)], push=PUSH)
    assert len(waiting(valkey)) == 30
    assert len(caught.value.refused) == 20
    assert not caught.value.refused & waiting(valkey).keys()


def test_a_repeat_of_what_waits_needs_no_room(client: Client, inbox: Inbox, valkey: redis.Redis) -> None:
    limit(inbox, most_messages=3)
    recipients = [Recipient(user="u-1", id=uuid4(), key="order-4711")]
    client.notify_many(recipients, push=PUSH)
    assert fill(client, 10) == 2
    used = valkey.hget(INBOX_BACKLOG, "used")
    ((id_, (task, message)),) = list(waiting(valkey).items())[:1]
    again = Outgoing.encode(UUID(id_), task, message, "1 notifications")
    client._broker.accept([again])
    assert valkey.hget(INBOX_BACKLOG, "used") == used


def test_bytes_are_bounded_too_and_counted_exactly(client: Client, inbox: Inbox, valkey: redis.Redis) -> None:
    limit(inbox, most_bytes=100_000)
    count = fill(client, 10_000)
    sizes = sum(len(entry) for entry in valkey.hvals(INBOX_MESSAGES))
    assert int(valkey.hget(INBOX_BACKLOG, "used") or 0) == sizes
    assert 100_000 <= sizes < 100_000 + sizes / count
    some = list(waiting(valkey).items())[:50]
    inbox.done(Task.SEND_PUSH, [(id_, message) for id_, (_, message) in some])
    assert int(valkey.hget(INBOX_BACKLOG, "used") or 0) == sum(len(e) for e in valkey.hvals(INBOX_MESSAGES))
    work_off(inbox, valkey)
    assert valkey.hget(INBOX_BACKLOG, "used") is None


def test_messages_that_others_wrote_into_the_inbox_by_hand_never_make_the_count_negative(
    client: Client, inbox: Inbox, valkey: redis.Redis
) -> None:
    client.notify(user="u-1", push=PUSH)
    for n in range(3):
        valkey.hset(INBOX_MESSAGES, f"by-hand-{n}", json.dumps({"task": Task.CANCEL, "message": {"v": 1}}) + " " * 900)
    inbox.done(Task.CANCEL, [("by-hand-0", {}), ("by-hand-1", {})])
    assert int(valkey.hget(INBOX_BACKLOG, "used") or 0) >= 0
    work_off(inbox, valkey)
    assert valkey.hget(INBOX_BACKLOG, "used") is None


def test_the_limit_costs_no_round_trip(client: Client, inbox: Inbox, valkey: redis.Redis) -> None:
    limit(inbox, most_messages=10)
    client.notify(user="u-1", push=PUSH)
    valkey.config_resetstat()
    client.notify(user="u-1", push=PUSH)
    assert valkey.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert valkey.info("stats")["total_commands_processed"] < 20


def test_a_broker_whose_memory_is_full_says_the_same_and_workers_still_empty_it(tmp_path: Path, inbox: Inbox) -> None:
    with OwnValkey(tmp_path) as server, Client(server.url) as client:
        there = replace(inbox, redis=server.client)
        for _ in range(5):
            client.notify(user="u-1", push=PUSH)
        server.client.config_set("maxmemory", 1)
        for key in (None, "order-4711"):
            with pytest.raises(QueueFull, match="its memory is full"):
                client.notify(user="u-2", push=PUSH, key=key)
        there.sweep(lambda *_: None)
        work_off(there, server.client)
        assert server.client.hlen(INBOX_MESSAGES) == 0
        server.client.config_set("maxmemory", 0)
        client.notify(user="u-2", push=PUSH, key="order-4711")
