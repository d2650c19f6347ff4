"""The producer and a real Valkey: what "accepted" promises, and what an application sees when the
broker is not there.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.worker.request import Request
from kombu import Connection, Queue

from knocktwice import BrokerUnavailable, Client, InvalidMessage, Push, Recipient, Sms
from knocktwice_shared import names

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.services import Services

PUSH = Push("Hello", "Your code is 4711")
#: What a call may take, in timeouts: one for each exchange and a good deal for a slow machine.
PATIENCE = 20


class Line:
    """A TCP line to a Unix socket that can go dead: it then takes everything and gives nothing back."""

    def __init__(self, target: Path) -> None:
        self.dead = False
        self._target = str(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def close(self) -> None:
        # Closing alone would leave the accepting thread waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(65_536):
                if not self.dead:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _start(self, work: Any, *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


@pytest.fixture
def line(servers: Servers, valkey: redis.Redis) -> Iterator[Line]:  # noqa: ARG001 - it empties the keyspace
    with closing(Line(servers.valkey_socket)) as line:
        yield line


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def accepted(valkey: redis.Redis) -> list[dict[str, Any]]:
    """Return the messages in the inbox, oldest first."""
    entries: dict[Any, Any] = valkey.hgetall(names.INBOX_MESSAGES)
    ids: Any = valkey.zrange(names.INBOX_ACCEPTED, 0, -1)
    return [json.loads(entries[id_]) for id_ in ids]


def accepted_ids(valkey: redis.Redis) -> list[Any]:
    return list(valkey.hkeys(names.INBOX_MESSAGES))


def opened(url: str, queue: str) -> Request:
    """Take a message off a queue as a Celery worker does."""

    def run(message: object) -> object:
        return message

    app = Celery(set_as_current=False)
    for task in names.Task:
        app.task(name=str(task), shared=False)(run)
    with Connection(url) as connection:
        message = Queue(queue)(connection.default_channel).get(no_ack=True)
    assert message is not None
    return Request(message, app=app, task=app.tasks[message.headers["task"]])


def test_an_accepted_message_is_in_the_inbox_and_on_the_queue_under_one_name(
    client: Client, valkey: redis.Redis, valkey_url: str
) -> None:
    id_ = client.notify(user="u-17", push=PUSH, sms=Sms(after=timedelta(minutes=5)))
    (entry,) = accepted(valkey)
    assert entry["task"] == "knocktwice.send_push"
    assert entry["message"]["recipients"][0]["id"] == str(id_)
    request = opened(valkey_url, "knocktwice.push")
    assert request.args == [entry["message"]]
    assert accepted_ids(valkey) == [request.id.encode()]
    assert request.id == entry["message"]["id"]
    now = valkey.time()[0]
    assert valkey.zscore(names.INBOX_ACCEPTED, request.id) == pytest.approx(now, abs=60)


def test_celery_runs_what_the_producer_wrote(client: Client, valkey_url: str) -> None:
    client.notify(user="Zoë 😀", push=PUSH, params={"x": [1, None, "\\u0000"]})
    client.record_delivered(uuid4())
    client.cancel(uuid4())
    client.bind_phone("u-17", None)
    request = opened(valkey_url, "knocktwice.push")
    assert request.execute() == request.args[0]
    assert request.args[0]["recipients"][0]["user"] == "Zoë 😀"
    assert (request.kwargs, request.eta, request.ignore_result) == ({}, None, True)
    tasks = [opened(valkey_url, "knocktwice.events").task_name for _ in range(3)]
    assert tasks == ["knocktwice.record_events", "knocktwice.cancel", "knocktwice.update_audience"]


def test_what_flower_shows_of_a_message_holds_no_personal_data(client: Client, valkey_url: str) -> None:
    client.notify(registrations=["token-1"], phone="+16505550100", push=PUSH, key="order-4711")
    client.bind_phone("u-17", "+16505550100")
    for queue in ("knocktwice.push", "knocktwice.events"):
        request = opened(valkey_url, queue)
        shown = json.dumps([request.info(safe=True), request.message.headers], default=str)
        assert request.id in shown
        for personal in ("6505550100", "token-1", "4711", "u-17", "Hello"):
            assert personal not in shown


def test_an_envelope_written_by_hand_as_the_contract_shows_is_one_that_celery_opens(
    valkey: redis.Redis, valkey_url: str
) -> None:
    document = (Path(__file__).parents[3] / "shared" / "CONTRACT.md").read_text()
    shown = re.search(r"^LPUSH (\S+) '(\{.*?^\})'$", document, re.DOTALL | re.MULTILINE)
    assert shown
    envelope = json.loads(shown[2])
    assert base64.b64decode(envelope["body"]).startswith(b'[[{"v":1')
    envelope["body"] = base64.b64encode(b'[[{"v":1}],{},{}]').decode()
    valkey.lpush(shown[1], json.dumps(envelope))
    request = opened(valkey_url, shown[1])
    assert (request.task_name, request.args) == ("knocktwice.send_push", [{"v": 1}])


def test_many_batches_arrive_in_order(client: Client, valkey: redis.Redis, valkey_url: str) -> None:
    ids = client.notify_many((f"u-{i}" for i in range(10_750)), push=PUSH)
    sent = [r["id"] for entry in accepted(valkey) for r in entry["message"]["recipients"]]
    assert sent == [str(id_) for id_ in ids]
    assert valkey.llen("knocktwice.push") == 22
    assert opened(valkey_url, "knocktwice.push").args[0]["recipients"][0]["id"] == str(ids[0])


def test_a_message_that_cannot_be_queued_is_accepted_and_swept(
    client: Client, valkey: redis.Redis, here: Services, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.set("knocktwice.push", "not a list, so that the queue refuses")
    with caplog.at_level(logging.WARNING, "knocktwice"):
        id_ = client.notify(user="u-17", push=PUSH)
    assert "accepted but not queued; a worker's sweep will" in caplog.text
    (message_id,) = (bytes(id_).decode() for id_ in accepted_ids(valkey))
    valkey.zadd(names.INBOX_ACCEPTED, {message_id: 0})
    published: list[tuple[str, Any, str]] = []
    here.inbox.sweep(lambda *what: published.append(what))
    ((task, message, name),) = published
    assert (task, message["recipients"][0]["id"], name) == ("knocktwice.send_push", str(id_), message_id)


@pytest.mark.parametrize("entry", ["{", "[]", "7", "{}", '{"task":"knocktwice.newer","message":{}}', "nul \0 \ud83d"])
def test_an_entry_in_the_inbox_that_nobody_can_read_is_parked_and_holds_up_no_other(
    client: Client, valkey: redis.Redis, here: Services, entry: str
) -> None:
    valkey.hset(names.INBOX_MESSAGES, "odd", entry.encode(errors="surrogatepass"))
    client.notify(user="u-17", push=PUSH)
    valkey.zadd(names.INBOX_ACCEPTED, {"odd": 0} | dict.fromkeys(accepted_ids(valkey), 0))
    published: list[tuple[str, Any, str]] = []
    here.inbox.sweep(lambda *what: published.append(what))
    assert [what[0] for what in published] == ["knocktwice.send_push"]
    with here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT message_id FROM dead_letters")).scalars().all() == ["odd"]
    assert b"odd" not in accepted_ids(valkey)


def test_what_the_inbox_does_not_take_is_not_accepted_and_not_queued(client: Client, valkey: redis.Redis) -> None:
    valkey.set(names.INBOX_MESSAGES, "not a hash, so that the inbox refuses")
    with pytest.raises(BrokerUnavailable, match="did not accept the message"):
        client.notify(user="u-17", push=PUSH)
    assert valkey.llen("knocktwice.push") == 0


def test_of_64_simultaneous_uses_of_a_key_all_get_one_id(valkey: redis.Redis, valkey_url: str) -> None:
    clients = [Client(valkey_url) for _ in range(8)]
    together = threading.Barrier(64)

    def call(number: int) -> UUID:
        together.wait()
        return clients[number % 8].notify(user="u-17", push=PUSH, key="order-4711")

    with ThreadPoolExecutor(64) as pool:
        ids = set(pool.map(call, range(64)))
    for client in clients:
        client.close()
    assert len(ids) == 1
    sent = {r["id"] for entry in accepted(valkey) for r in entry["message"]["recipients"]}
    assert sent == {str(id_) for id_ in ids}


def test_a_key_is_remembered_for_days_and_not_in_clear(client: Client, valkey: redis.Redis) -> None:
    first = client.notify(user="ana@example.org", push=PUSH, key="ana@example.org")
    again = client.notify_many([Recipient("b"), Recipient("c", key="ana@example.org")], push=PUSH)
    assert again[1] == first != again[0]
    (name,) = valkey.keys(f"{names.KEY_PREFIX}*")
    assert b"ana" not in name
    assert valkey.ttl(name) > timedelta(days=6).total_seconds()


def test_connections_that_died_meanwhile_are_replaced_unnoticed(client: Client, valkey: redis.Redis) -> None:
    for _ in range(3):
        client.notify(user="u-17", push=PUSH, key=str(uuid4()))
        valkey.client_kill_filter(_type="normal", skipme=True)
    assert len(accepted(valkey)) == 3


def test_a_closed_client_opens_again(client: Client, valkey: redis.Redis) -> None:
    client.close()
    client.notify(user="u-17", push=PUSH)
    client.close()
    client.notify(user="u-17", push=PUSH)
    assert len(accepted(valkey)) == 2


@pytest.mark.parametrize("key", [None, "order-4711"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_without_a_broker_the_call_ends_in_time_and_names_the_place(
    scheme: str, kind: str, key: str | None, closed_port: int, silent_port: int
) -> None:
    port = closed_port if kind == "closed" else silent_port
    client = Client(f"{scheme}://user:s3cret@127.0.0.1:{port}/0", timeout=0.2)
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=rf"the broker at 127\.0\.0\.1:{port} did not accept") as caught:
        client.notify(user="u-17", push=PUSH, key=key)
    assert time.monotonic() - start < PATIENCE * 0.2
    assert "call again with the same key" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    client.close()


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_without_rabbitmq_a_call_is_accepted_in_time_and_waits_for_the_next_sweep(
    kind: str,
    closed_port: int,
    silent_port: int,
    valkey: redis.Redis,
    valkey_url: str,
    here: Services,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = closed_port if kind == "closed" else silent_port
    with Client(f"amqp://user:s3cret@127.0.0.1:{port}//", state_url=valkey_url, timeout=0.5) as client:
        began = time.monotonic()
        ids = [client.notify(user="u-17", push=PUSH) for _ in range(2 * PATIENCE)]
        # Only one call waited for RabbitMQ.
        assert time.monotonic() - began < PATIENCE * 0.5
    assert [f"RabbitMQ at 127.0.0.1:{port} does not answer" in line for line in caplog.messages] == [True]
    assert "s3cret" not in caplog.text
    assert valkey.llen("knocktwice.push") == 0
    assert set(valkey.zrange(names.INBOX_ACCEPTED, 0, -1, withscores=True)) == {
        (id_, 0) for id_ in accepted_ids(valkey)
    }
    first: list[Any] = []
    here.inbox.sweep(lambda *_: pytest.fail("it was never published before"), lambda *what: first.append(what))
    assert {what[1]["recipients"][0]["id"] for what in first} == {str(id_) for id_ in ids}


def test_a_line_that_goes_dead_is_given_up_in_time_and_used_again_later(line: Line, valkey: redis.Redis) -> None:
    with Client(f"redis://127.0.0.1:{line.port}/1", timeout=0.5) as client:
        client.notify(user="before", push=PUSH)
        line.dead = True
        start = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            client.notify(user="during", push=PUSH)
        assert time.monotonic() - start < PATIENCE * 0.5
        line.dead = False
        client.notify(user="after", push=PUSH)
    assert [e["message"]["recipients"][0]["user"] for e in accepted(valkey)] == ["before", "after"]


def test_threads_that_wait_for_a_dead_line_give_up_in_time_too(line: Line) -> None:
    with Client(f"redis://127.0.0.1:{line.port}/1", timeout=0.2) as client:
        client.notify(user="before", push=PUSH)
        line.dead = True

        def call(_: int) -> type[BaseException] | None:
            try:
                client.notify(user="during", push=PUSH)
            except BrokerUnavailable as error:
                return type(error)
            return None

        start = time.monotonic()
        with ThreadPoolExecutor(40) as pool:
            assert set(pool.map(call, range(40))) == {BrokerUnavailable}
        assert time.monotonic() - start < PATIENCE * 0.2


def test_a_password_is_in_no_error_and_no_repr(line: Line) -> None:
    with Client(f"redis://nobody:s3cret@127.0.0.1:{line.port}/1") as client:
        with pytest.raises(BrokerUnavailable, match="invalid username-password pair") as caught:
            client.notify(user="u-17", push=PUSH)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        seen: Any = client
        for name in (None, "_broker", "_address"):
            seen = seen if name is None else getattr(seen, name)
            assert "s3cret" not in repr(seen)


FORKS = """
import os, sys, threading
from knocktwice import Client, Push

client, push, over = Client(sys.argv[1]), Push("a", "b"), threading.Event()

def hammer():
    while not over.is_set():
        client.notify(user="thread", push=push)

thread = threading.Thread(target=hammer)
thread.start()
children = []
for number in range(8):
    client.notify(user="parent", push=push)
    child = os.fork()
    if child == 0:
        # The copy of a lock that a thread of the parent held would never open here.
        for _ in range(5):
            client.notify(user=f"child", push=push)
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
over.set()
thread.join()
sys.exit(any(codes))
"""


def test_a_client_survives_forks_while_threads_use_it(valkey: redis.Redis, valkey_url: str) -> None:
    # A process of its own, because a fork of this one would copy the servers' supervisor.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, valkey_url]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(timeout=60) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
    users = [entry["message"]["recipients"][0]["user"] for entry in accepted(valkey)]
    assert (users.count("parent"), users.count("child")) == (8, 40)
    assert valkey.llen("knocktwice.push") == len(users)


def subjects(valkey: redis.Redis) -> set[str]:
    """Return whom the messages in the inbox are about."""
    members: Any = valkey.zrange(names.INBOX_SUBJECTS, 0, -1)
    return {member.decode().rpartition("\n")[0] for member in members}


def test_the_inbox_knows_whom_a_message_is_about_that_decisions_wait_for(client: Client, valkey: redis.Redis) -> None:
    one, two = uuid4(), uuid4()
    client.record_clicked(str(one).upper())
    client.cancel(two, key="order-4711", blast="tea")
    client.register_device("u-1", "t-1")
    client.unregister_device("t-2")
    client.bind_phone("u-2", "+16505550100")
    client.set_marketing_consent("u-3", False, source="web")
    client.tag_user("u-4", {}, locale="de")
    client.erase_user("u-5")
    assert subjects(valkey) == {
        f"n:{one}",
        f"n:{two}",
        "k:order-4711",
        "b:tea",
        "u:u-1",
        "d:t-1",
        "d:t-2",
        "u:u-2",
        "u:u-3",
        "u:u-4",
        "u:u-5",
    }


def test_an_import_of_tags_and_a_notification_hold_up_nobody(client: Client, valkey: redis.Redis) -> None:
    client.tag_user("u-1", {"plan": "gold"})
    client.notify(user="u-1", push=PUSH)
    assert subjects(valkey) == set()


def test_who_somebody_is_goes_ahead_of_the_notification_in_the_same_call(client: Client, valkey: redis.Redis) -> None:
    client.notify(
        user="u-1", registrations=["t-1"], phone="+1 650 555 0100", locale="de", tags={"plan": "gold"}, push=PUSH
    )
    batch, said = sorted(accepted(valkey), key=lambda entry: str(entry["task"]))
    assert [(c["change"], c.get("registration"), c.get("locale")) for c in said["message"]["changes"]] == [
        ("register_device", "t-1", "de"),
        ("bind_phone", None, None),
        ("set_tags", None, None),
    ]
    (recipient,) = batch["message"]["recipients"]
    assert {name: recipient.get(name) for name in ("user", "registrations", "phone", "tags")} == {
        "user": "u-1",
        "registrations": None,
        "phone": None,
        "tags": None,
    }
    assert subjects(valkey) == {"u:u-1", "d:t-1"}


@pytest.mark.parametrize(
    ("person", "field"),
    [
        ({"user": "u-1", "phone": "0650"}, "recipients[1].phone"),
        ({"user": "u-1", "registrations": ["tok", ""]}, "recipients[1].registrations[1]"),
        ({"user": "u-1", "tags": {"plan": {}}}, "recipients[1].tags.plan"),
        ({"user": "", "phone": "+16505550100"}, "recipients[1].user"),
        ({"user": "u-1", "registrations": ["tok"], "locale": 7}, "recipients[1].locale"),
        ({"registrations": ["tok"], "tags": {}}, "recipients[1].tags"),
    ],
)
def test_what_is_wrong_about_a_person_is_named_as_the_caller_gave_it_and_nothing_is_sent(
    client: Client, valkey: redis.Redis, person: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMessage) as refused:
        client.notify_many([Recipient(user="u-0"), Recipient(**person)], push=PUSH)
    assert refused.value.field == field
    assert not accepted(valkey)


def test_a_broker_that_has_forgotten_the_script_gets_it_again(client: Client, valkey: redis.Redis) -> None:
    client.notify(user="u-1", push=PUSH)
    valkey.script_flush()
    client.notify(user="u-1", push=PUSH)
    assert len(accepted_ids(valkey)) == 2
