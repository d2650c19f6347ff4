"""An outbox in the application's own database: committed is accepted, rolled back is nothing,
each is published, in order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from knocktwice import BrokerUnavailable, Client, InvalidMessage, Push, Recipient
from knocktwice.outbox import DDL, OutboxClient, Relay
from knocktwice_shared.names import INBOX_MESSAGES, INBOX_SUBJECTS
from support.own_valkey import OwnValkey
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from support.commands import CommandOutput

PUSH = Push("Thank you", "Your order is in.")


@pytest.fixture
def application(database_url: str) -> Iterator[sa.Engine]:
    """The application's own database, with a table of its own and the outbox."""
    engine = sa.create_engine(database_url)
    with engine.begin() as conn:
        conn.exec_driver_sql(DDL)
        conn.exec_driver_sql(DDL)
        conn.exec_driver_sql("CREATE TABLE orders (id int PRIMARY KEY)")
    yield engine
    engine.dispose()


@pytest.fixture
def plain_url(database_url: str) -> str:
    return database_url.replace("+psycopg2", "")


@pytest.fixture
def relay(application: sa.Engine, valkey_url: str) -> Iterator[Relay]:
    with closing(Relay(application.raw_connection, valkey_url)) as relay:
        yield relay


def accepted(valkey: redis.Redis) -> list[Any]:
    """Return the messages on the queues, the oldest of each first."""
    entries: list[Any] = []
    for queue in ("knocktwice.push", "knocktwice.events"):
        found: Any = valkey.lrange(queue, 0, -1)
        entries += reversed(found)
    return [json.loads(json.loads(entry)["body"])[0][0] for entry in entries]


def users(messages: list[Any]) -> list[str]:
    return [recipient["user"] for message in messages for recipient in message.get("recipients", ())]


def test_what_is_committed_is_published_in_its_order_and_what_is_rolled_back_is_not(
    application: sa.Engine, relay: Relay, valkey: redis.Redis
) -> None:
    with Session(application) as session, session.begin():
        session.execute(sa.text("INSERT INTO orders VALUES (1)"))
        client = OutboxClient(session)
        client.bind_phone("u-1", "+16505550100")
        id_ = client.notify(user="u-1", push=PUSH, key="order-1")
    with Session(application) as session:
        OutboxClient(session).notify(user="u-2", push=PUSH)
        session.rollback()
    with application.begin() as conn:
        OutboxClient(conn).cancel(key="order-1")
    assert accepted(valkey) == []
    assert relay.waiting()[0] == 3
    assert relay.publish() == 3
    notification, phone, cancellation = accepted(valkey)
    assert phone["changes"][0]["user"] == "u-1"
    assert notification["recipients"][0] == {"id": str(id_), "user": "u-1", "key": "order-1"}
    assert cancellation["keys"] == ["order-1"]
    assert valkey.zcard(INBOX_SUBJECTS) == 2
    assert (relay.publish(), relay.waiting()) == (0, (0, 0.0))


def test_a_plain_connection_of_psycopg2_is_a_transaction_too(
    application: sa.Engine, plain_url: str, relay: Relay, valkey: redis.Redis
) -> None:
    with closing(psycopg2.connect(plain_url)) as connection:
        OutboxClient(connection).notify(user="u-1", push=PUSH)
        connection.rollback()
        OutboxClient(connection).notify_many([f"u-{n}" for n in range(1_200)], push=PUSH)
        connection.commit()
    assert relay.publish() == 3
    assert users(accepted(valkey)) == [f"u-{n}" for n in range(1_200)]
    assert application.pool.checkedout() == 1  # type: ignore[attr-defined]


def test_a_wrong_argument_writes_no_row(application: sa.Engine, relay: Relay) -> None:
    with application.begin() as conn, pytest.raises(InvalidMessage, match="phone"):
        OutboxClient(conn).notify(user="u-1", phone="12", push=PUSH)
    assert relay.waiting() == (0, 0.0)


def test_a_broker_that_is_away_keeps_the_rows_and_a_repeat_is_the_same_message(
    application: sa.Engine, tmp_path: Path
) -> None:
    with OwnValkey(tmp_path) as server, closing(Relay(application.raw_connection, server.url, timeout=1)) as relay:
        with application.begin() as conn:
            ids = [OutboxClient(conn).notify(user=f"u-{n}", push=PUSH) for n in range(3)]
        server.kill()
        with pytest.raises(BrokerUnavailable):
            relay.publish()
        assert relay.waiting()[0] == 3
        server.start()
        # The relay dies after the broker has the messages and before the rows are gone.
        with pytest.raises(KeyboardInterrupt):
            _die_before_the_commit(relay)
        assert relay.waiting()[0] == 3
        assert relay.publish() == 3
        assert server.client.hlen(INBOX_MESSAGES) == 3
        sent = [r["id"] for message in accepted(server.client) for r in message["recipients"]]
    assert sent == [str(id_) for id_ in ids] * 2


def _die_before_the_commit(relay: Relay) -> None:
    accept = relay._broker.accept

    def accept_and_die(messages: Any) -> None:
        accept(messages)
        raise KeyboardInterrupt

    relay._broker.accept = accept_and_die  # type: ignore[method-assign]
    try:
        relay.publish()
    finally:
        del relay._broker.accept


def test_a_key_that_was_used_before_keeps_its_first_id(
    application: sa.Engine, relay: Relay, valkey: redis.Redis, valkey_url: str
) -> None:
    with Client(valkey_url) as client:
        first = client.notify(user="u-1", push=PUSH, key="order-1")
    with application.begin() as conn:
        outbox = OutboxClient(conn)
        outbox.notify(user="u-1", push=PUSH, key="order-1")
        second = outbox.notify_many([Recipient("u-1", key="order-2")], push=PUSH)[0]
        outbox.notify(user="u-1", push=PUSH, key="order-2")
    relay.publish()
    ids = [message["recipients"][0]["id"] for message in accepted(valkey)]
    assert ids == [str(first), str(first), str(second), str(second)]


def test_of_several_relays_one_works_and_the_order_stays(
    application: sa.Engine, valkey: redis.Redis, valkey_url: str
) -> None:
    with application.begin() as conn:
        for n in range(900):
            OutboxClient(conn).notify(user=f"u-{n}", push=PUSH)
    stop = threading.Event()
    relays = [Relay(application.raw_connection, valkey_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for relay in relays:
            pool.submit(relay.run, stop, every_s=0.01)
        eventually(lambda: valkey.llen("knocktwice.push") == 900)
        stop.set()
    for relay in relays:
        relay.close()
    assert users(accepted(valkey)) == [f"u-{n}" for n in range(900)]


@pytest.mark.usefixtures("configured")
def test_the_command_publishes_until_it_is_told_to_stop(
    application: sa.Engine, plain_url: str, valkey: redis.Redis, valkey_url: str, run: Callable[..., CommandOutput]
) -> None:
    command = [sys.executable, "-m", "knocktwice_worker.cli", "outbox", "relay", "--database", plain_url]
    environment = os.environ | {"KNOCKTWICE_BROKER_URL": valkey_url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        with application.begin() as conn:
            OutboxClient(conn).notify(user="u-1", push=PUSH)
        eventually(lambda: users(accepted(valkey)) == ["u-1"])
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    shown = run("outbox", "status", "--database", plain_url, "--json")
    assert (shown.code, shown.json) == (0, {"waiting": 0, "oldest_s": 0.0})
    with application.begin() as conn:
        OutboxClient(conn).notify(user="u-2", push=PUSH)
        conn.exec_driver_sql("UPDATE knocktwice_outbox SET created_at = now() - interval '2 minutes'")
    shown = run("outbox", "status", "--database", plain_url)
    assert shown.code == 1
    assert re.fullmatch(r"1 waiting, the oldest for 12\d s\n", shown.out)


def test_the_command_makes_the_table_and_says_which_database_is_missing(
    database_url: str, run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "CREATE TABLE IF NOT EXISTS knocktwice_outbox" in run("outbox", "create", "--show").out
    assert "KNOCKTWICE_OUTBOX_DATABASE_URL" in run("outbox", "status").err
    engine = sa.create_engine(database_url)
    assert run("outbox", "create", "--database", database_url).code == 0
    assert "knocktwice_outbox" in sa.inspect(engine).get_table_names()
    engine.dispose()
    monkeypatch.setenv("KNOCKTWICE_OUTBOX_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "the application's database" in run("outbox", "status", "--database", "postgresql://127.0.0.1:1/none").err
