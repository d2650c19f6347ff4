"""What "accepted" means is a choice: each level is confirmed by the broker itself,
or the caller is told that it is not.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice import BrokerUnavailable, Client, Durability, KnocktwiceError, NotConfirmed, Push
from knocktwice_shared.names import INBOX_MESSAGES
from support.own_valkey import OwnValkey
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from support.commands import CommandOutput

PUSH = Push("Hello", "Your code is 4711")
ROUNDS = 12


def accepted(server: redis.Redis) -> set[str]:
    """Return the notifications in the inbox."""
    entries: Any = server.hvals(INBOX_MESSAGES)
    messages = [json.loads(entry)["message"] for entry in entries]
    return {recipient["id"] for message in messages for recipient in message.get("recipients", ())}


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[OwnValkey]:
    with OwnValkey(tmp_path / "primary", {"appendfsync": "always"}) as running:
        yield running


@pytest.fixture
def replica(tmp_path: Path, primary: OwnValkey) -> Iterator[OwnValkey]:
    with OwnValkey(tmp_path / "replica", {"replicaof": f"127.0.0.1 {primary.port}"}) as running:
        eventually(lambda: running.client.info("replication")["master_link_status"] == "up")
        yield running


def test_what_was_accepted_at_disk_survives_a_broker_that_is_killed_at_any_moment(primary: OwnValkey) -> None:
    told: set[str] = set()
    for _ in range(ROUNDS):
        enough = threading.Event()

        def call(enough: threading.Event = enough) -> None:
            with Client(primary.url, timeout=2, durability="disk") as client:
                while True:
                    try:
                        told.add(str(client.notify(user="u-17", push=PUSH)))
                    except BrokerUnavailable:
                        return
                    finally:
                        enough.set()

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        enough.wait()
        primary.kill()
        for thread in threads:
            thread.join()
        primary.start()
    assert len(told) >= ROUNDS
    assert told <= accepted(primary.client)


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_disk_is_what_the_broker_itself_confirms(tmp_path: Path, fsync: str) -> None:
    with OwnValkey(tmp_path, {"appendfsync": fsync}) as server, Client(server.url, durability="disk") as client:
        ids = client.notify_many([f"u-{n}" for n in range(11_000)], push=PUSH)
        calls: dict[str, Any] = server.client.info("commandstats")
        # 22 messages are two round trips, and one wait for both. The first one teaches the server the script.
        accepting = calls["cmdstat_evalsha"]
        assert accepting["calls"] - accepting["failed_calls"] == 2
        assert calls["cmdstat_waitaof"]["calls"] == 1
        assert accepted(server.client) == {str(id_) for id_ in ids}


def test_without_an_append_only_file_disk_is_refused_and_memory_is_not(tmp_path: Path) -> None:
    with OwnValkey(tmp_path, {"appendonly": "no"}) as server:
        with Client(server.url, durability="disk") as client, pytest.raises(NotConfirmed) as caught:
            client.notify(user="u-17", push=PUSH, key="order-4711")
        said = str(caught.value)
        assert "set appendonly yes" in said
        assert "the outcome is unknown, and it is safe to call again with the same key" in said
        with Client(server.url, durability="memory") as client:
            id_ = client.notify(user="u-17", push=PUSH, key="order-4711")
        assert accepted(server.client) == {str(id_)}


def test_what_was_accepted_at_replica_is_on_the_replica(primary: OwnValkey, replica: OwnValkey) -> None:
    with Client(primary.url, durability=Durability.REPLICA, replicas=1) as client:
        for _ in range(20):
            id_ = client.notify(user="u-17", push=PUSH)
            assert str(id_) in accepted(replica.client)


def test_a_replica_that_hangs_confirms_nothing_and_a_repeat_with_the_key_is_the_same_notification(
    primary: OwnValkey, replica: OwnValkey
) -> None:
    with Client(primary.url, timeout=1, durability="replica") as client:
        replica.suspend()
        with pytest.raises(NotConfirmed, match="0 of 1 replicas have it"):
            client.notify(user="u-17", push=PUSH, key="order-4711")
        replica.resume()
        id_ = client.notify(user="u-17", push=PUSH, key="order-4711")
    assert accepted(replica.client) == {str(id_)}


def test_more_replicas_than_there_are_confirm_nothing(primary: OwnValkey, replica: OwnValkey) -> None:  # noqa: ARG001
    with (
        Client(primary.url, timeout=0.5, durability="replica", replicas=2) as client,
        pytest.raises(NotConfirmed, match="1 of 2 replicas have it"),
    ):
        client.cancel(key="order-4711")


def test_the_environment_chooses_the_level_where_the_call_does_not(
    primary: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_DURABILITY", "replica")
    with Client(primary.url, timeout=2) as client, pytest.raises(NotConfirmed):
        client.notify(user="u-17", push=PUSH)
    with Client(primary.url, durability="memory") as client:
        client.notify(user="u-17", push=PUSH)


@pytest.mark.parametrize(
    ("durability", "replicas", "problem"),
    [
        ("tape", None, "durability .* must be one of memory, disk, replica, not 'tape'"),
        ("replica", 0, "replicas .* must be a whole number from 1 on, not 0"),
        ("replica", "two", "replicas .* must be a whole number from 1 on, not 'two'"),
    ],
)
def test_a_level_that_does_not_exist_is_refused_by_name(durability: str, replicas: int | None, problem: str) -> None:
    with pytest.raises(KnocktwiceError, match=problem):
        Client("redis://localhost", durability=durability, replicas=replicas)


def test_with_rabbitmq_the_levels_are_those_of_the_place_of_state() -> None:
    for level in ("memory", "disk", "replica"):
        Client("amqp://localhost", state_url="redis://localhost", durability=level)


@pytest.mark.parametrize(
    ("level", "options", "found"),
    [
        ("memory", {}, "accepted means: in the broker's memory; a crash of the broker within two seconds may lose it"),
        ("disk", {}, "accepted means: on the broker's disk"),
        ("disk", {"appendonly": "no"}, "KNOCKTWICE_DURABILITY is disk, so no call is confirmed; set appendonly yes"),
        ("replica", {}, "KNOCKTWICE_DURABILITY is replica, but 0 of 1 replica is connected"),
    ],
)
def test_doctor_says_what_accepted_means_and_whether_the_broker_can_hold_it(
    tmp_path: Path,
    level: str,
    options: dict[str, str],
    found: str,
    run: Callable[..., CommandOutput],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OwnValkey(tmp_path, options) as server:
        monkeypatch.setenv("KNOCKTWICE_BROKER_URL", server.url)
        monkeypatch.setenv("KNOCKTWICE_DURABILITY", level)
        broker = next(check for check in json.loads(run("doctor", "--json").out) if check["name"] == "broker")
    assert found in broker["finding"]
    assert (broker["level"] == "ok") == ("accepted means" in found)
