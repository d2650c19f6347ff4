"""The asyncio client: the same calls, a few round trips for a thousand of them,
and nothing lost when the broker comes and goes.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from knocktwice import (
    AsyncClient,
    BrokerUnavailable,
    Client,
    InvalidMessage,
    NotificationId,
    Push,
    QueueFull,
    Recipient,
)
from knocktwice_shared.names import INBOX_BACKLOG, INBOX_MESSAGES
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

PUSH = Push("Hello", "Your code is 4711")


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    with OwnValkey(tmp_path / "valkey", {"appendfsync": "always"}) as running:
        yield running


def accepted(server: redis.Redis) -> set[str]:
    """Return the notifications in the inbox."""
    entries: Any = server.hvals(INBOX_MESSAGES)
    messages = [json.loads(entry)["message"] for entry in entries]
    return {recipient["id"] for message in messages for recipient in message.get("recipients", ())}


def evals(server: redis.Redis) -> int:
    """Return how many scripts the server has run."""
    stats: Any = server.info("commandstats")
    return int(stats.get("cmdstat_eval", {"calls": 0})["calls"])


def test_it_has_every_method_of_the_client_with_the_same_arguments() -> None:
    def public(kind: type) -> dict[str, inspect.Signature]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {name: inspect.signature(f) for name, f in functions if not name.startswith("_")}

    assert public(AsyncClient) == public(Client)


def test_a_thousand_concurrent_calls_are_accepted_in_few_exchanges_and_by_one_thread(valkey: OwnValkey) -> None:
    async def call() -> tuple[list[NotificationId], set[str]]:
        async with AsyncClient(valkey.url) as client:
            ids = await asyncio.gather(*(client.notify(user=f"u-{i}", push=PUSH) for i in range(1000)))
            return ids, {thread.name for thread in threading.enumerate()} - before

    before = {thread.name for thread in threading.enumerate()}
    ids, threads = asyncio.run(call())
    assert accepted(valkey.client) == set(map(str, ids))
    assert threads == {"knocktwice-sender"}
    assert evals(valkey.client) < 200


def test_each_kind_of_call_returns_what_the_client_returns(valkey: OwnValkey) -> None:
    async def call() -> None:
        async with AsyncClient(valkey.url) as client:
            await client.register_device("u-1", "a-registration-token-of-a-phone", platform="android")
            many = await client.notify_many([Recipient(user="u-1"), "u-2"], push=PUSH)
            assert [isinstance(id_, UUID) for id_ in many] == [True, True]
            first = await client.notify(user="u-1", push=PUSH, key="order-1")
            again = await client.notify(user="u-1", push=PUSH, key="order-1")
            assert (again, first.duplicate, again.duplicate, again.differs) == (first, False, True, False)
            await client.cancel(first)
            with pytest.raises(InvalidMessage, match="push"):
                await client.notify(user="u-1")

    asyncio.run(call())
    assert len(accepted(valkey.client)) == 3


def test_while_the_broker_is_away_the_loop_goes_on_and_every_call_is_told_within_its_time(valkey: OwnValkey) -> None:
    async def call() -> tuple[list[object], int]:
        valkey.suspend()
        turns = 0
        async with AsyncClient(valkey.url, timeout=0.5) as client:
            calls = asyncio.gather(
                *(client.notify(user=f"u-{i}", push=PUSH) for i in range(1000)), return_exceptions=True
            )
            while not calls.done():
                turns += 1
                await asyncio.sleep(0)
            answers: list[object] = list(calls.result())
            return answers, turns

    answers, turns = asyncio.run(call())
    assert {type(answer) for answer in answers} == {BrokerUnavailable}
    assert turns > 100


def test_nothing_that_was_told_accepted_is_lost_while_the_broker_comes_and_goes(valkey: OwnValkey) -> None:
    async def call() -> set[str]:
        told: set[str] = set()
        over = asyncio.Event()

        async def caller(client: AsyncClient) -> None:
            while not over.is_set():
                try:
                    told.add(str(await client.notify(user="u-1", push=PUSH)))
                except BrokerUnavailable:
                    await asyncio.sleep(0)

        async with AsyncClient(valkey.url, timeout=1, durability="disk") as client:
            callers = [asyncio.create_task(caller(client)) for _ in range(50)]
            for round_ in range(1, 5):
                while len(told) < 200 * round_:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(valkey.kill)
                await asyncio.to_thread(valkey.start)
            over.set()
            await asyncio.gather(*callers)
        return told

    told = asyncio.run(call())
    assert len(told) >= 800
    assert told <= accepted(valkey.client)


def test_a_call_that_was_cancelled_while_it_waited_sends_nothing(valkey: OwnValkey) -> None:
    async def call() -> UUID:
        async with AsyncClient(valkey.url) as client:
            await client.notify(user="first", push=PUSH)
            # The one thread is kept busy, so that the next call waits in this process.
            with client._client._broker._lock:  # type: ignore[attr-defined]
                busy = asyncio.create_task(client.notify(user="busy", push=PUSH))
                await asyncio.sleep(0.05)
                waiting = asyncio.create_task(client.notify(user="given up", push=PUSH))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            return await busy

    busy = asyncio.run(call())
    entries: Any = valkey.client.hvals(INBOX_MESSAGES)
    users = [recipient["user"] for entry in entries for recipient in json.loads(entry)["message"]["recipients"]]
    assert sorted(users) == ["busy", "first"]
    assert str(busy) in accepted(valkey.client)


def test_of_calls_that_share_an_exchange_only_those_without_room_are_refused(valkey: OwnValkey) -> None:
    valkey.client.hset(INBOX_BACKLOG, "messages", "3")

    async def call() -> list[object]:
        async with AsyncClient(valkey.url) as client:
            return list(
                await asyncio.gather(
                    *(client.notify(user=f"u-{i}", push=PUSH) for i in range(5)), return_exceptions=True
                )
            )

    answers = asyncio.run(call())
    assert {str(answer) for answer in answers if isinstance(answer, UUID)} == accepted(valkey.client)
    assert sum(isinstance(answer, QueueFull) for answer in answers) == 2


def test_several_loops_and_a_second_life_share_one_client(valkey: OwnValkey) -> None:
    client = AsyncClient(valkey.url)
    ids = [asyncio.run(client.notify(user=f"u-{i}", push=PUSH)) for i in range(3)]
    asyncio.run(client.close())
    ids.append(asyncio.run(client.notify(user="later", push=PUSH)))
    asyncio.run(client.close())
    assert accepted(valkey.client) == set(map(str, ids))
