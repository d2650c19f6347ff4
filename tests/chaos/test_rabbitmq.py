"""RabbitMQ carries the queues: the whole way, Flower, doctor, what nobody can read,
and a broker that dies under load.
"""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection

from knocktwice import Client, Push, Sms
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, Queue
from knocktwice_worker.config import Settings
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.services import Services
from support.databases import lent_database
from support.flower import flower
from support.http_gateway import HttpGateway
from support.rabbitmq import Names, RabbitMq, needs_rabbitmq
from support.system import PUSH, System, eventually
from support.tls_port import TlsPort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.embedded.servers import Servers

SMS = Sms("Come soon.", after=timedelta(0))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """A RabbitMQ."""
    needs_rabbitmq()
    with Names(tmp_path_factory.mktemp("rabbitmq")) as names, RabbitMq(names) as running:
        yield running


@pytest.fixture(scope="module")
def system(node: RabbitMq, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation whose queues are in RabbitMQ, with one worker."""
    home = tmp_path_factory.mktemp("home")
    state = f"{servers.broker_url}?virtual_host=3"
    with lent_database(servers) as database, System(database, node.url, home, state_url=state) as built:
        built.redis.flushdb()
        built.start_worker()
        yield built


@pytest.fixture(scope="module")
def settings(system: System) -> Settings:
    """The settings of the installation."""
    return Settings(
        database_url=system.database_url,
        broker_url=system.broker_url,
        state_url=system.state_url,
        home=system.home,
        secret="test",
    )


@pytest.fixture
def here(settings: Settings) -> Iterator[Services]:
    """Its services, in this process."""
    built = Services(settings)
    yield built
    built.close()


def _texted(system: System, number: str) -> int:
    return sum(text.to == number for text in system.sandbox.texts())


def test_a_notification_goes_the_whole_way_from_the_library(system: System, node: RabbitMq) -> None:
    id_ = system.notify("+16505550601", sms=SMS)
    assert system.ended(id_).state == "texted"
    assert _texted(system, "+16505550601") == 1
    kinds = dict(line.split("\t") for line in node.ctl("list_queues", "name", "type").splitlines()[1:])
    assert {kinds[queue.value] for queue in Queue} == {"quorum"}
    assert not [name for name in kinds if name.startswith("celery_delayed")]
    eventually(lambda: system.redis.hlen(INBOX_MESSAGES) == 0, why=system.logs)


def test_a_notification_goes_the_whole_way_over_http(system: System, here: Services) -> None:
    with HttpGateway(here) as gateway:
        body = {"registrations": ["silent-http"], "phone": "+16505550602", "push": {"title": "t", "body": "b"}}
        answer = gateway.client().post("/v1/notifications", json={**body, "sms": {"text": "Come.", "after_s": 0}})
        assert answer.status_code == 202, answer.text
    eventually(lambda: _texted(system, "+16505550602") == 1, why=system.logs)


def test_what_nobody_can_read_is_parked_and_holds_up_no_other(system: System) -> None:
    with Connection(system.broker_url) as connection:
        producer = connection.Producer()
        for body, headers in (("{", {}), ("[]", {"id": "odd", "task": "knocktwice.newer"}), ("\0", {"id": "o"})):
            producer.publish(
                body.encode(),
                routing_key=Queue.PUSH.value,
                headers=headers,
                content_type="application/json",
                content_encoding="utf-8",
            )
    eventually(lambda: system.count("SELECT count(*) FROM dead_letters") == 3, why=system.logs)
    assert system.ended(system.notify("+16505550603", sms=SMS)).state == "texted"


def test_many_small_messages_are_processed_together(system: System) -> None:
    ids = [system.client.notify(registrations=[f"silent-m{n}"], push=PUSH) for n in range(40)]
    found = "SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"
    eventually(lambda: system.count(found, ids=[str(id_) for id_ in ids]) == len(ids), why=system.logs)
    # One commit writes the rows of many messages.
    together = "SELECT count(DISTINCT xmin::text) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"
    assert system.count(together, ids=[str(id_) for id_ in ids]) < len(ids)


def test_flower_shows_the_worker_its_tasks_and_our_tab(system: System, settings: Settings) -> None:
    with flower(settings, system.home, FLOWER_UNAUTHENTICATED_API="true", KNOCKTWICE_SECRET="test") as url:

        def asked(path: str) -> Any:
            with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:  # noqa: S310 - our own server
                return answer.read().decode()

        eventually(lambda: "w1@test" in json.loads(asked("/api/workers?status=true")), why=system.logs)
        system.notify("+16505550604")
        eventually(lambda: "knocktwice.send_push" in asked("/api/tasks"), why=system.logs)
        assert "fallback" in asked("/notifications")


def test_doctor_knows_rabbitmq_and_its_queues(system: System, here: Services) -> None:
    eventually(lambda: system.redis.hlen(INBOX_MESSAGES) == 0, why=system.logs)
    found = {check.name: check for check in doctor.examine(here)}
    assert found["rabbitmq"].level == "ok", found["rabbitmq"]
    assert "quorum queues: knocktwice.push 0" in found["rabbitmq"].finding
    assert found["backlog"].finding.startswith("knocktwice.push 0")


def _connections(listening: socket.socket) -> int:
    """Return how many connections wait at a socket that accepts none."""
    listening.setblocking(False)
    found = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            found += 1
    return found


def test_without_rabbitmq_calls_are_accepted_and_leave_it_alone_for_a_while(system: System) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:hush@127.0.0.1:{silent.getsockname()[1]}//"
        with Client(url, state_url=system.state_url, timeout=1) as client:
            ids = [client.notify(registrations=["silent-late"], push=PUSH) for _ in range(20)]
        # The first call tried. The others did not, or on a slow machine every few seconds.
        assert 1 <= _connections(silent) < len(ids) / 2
    # A worker's sweep publishes them, as messages that no worker can have died of.
    eventually(
        lambda: (
            system.count(
                "SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=[str(id_) for id_ in ids]
            )
            == 20
        ),
        why=system.logs,
    )


def test_rabbitmq_is_killed_under_load_and_nothing_is_lost_or_said_twice(system: System, node: RabbitMq) -> None:
    system.ended(system.notify("+16505550605"))
    numbers = [f"+1650555{n:04}" for n in range(700, 820)]
    ids = []
    with Client(node.url, state_url=system.state_url, timeout=2) as client:
        for n, number in enumerate(numbers):
            ids.append(client.notify(registrations=[f"silent-{n}"], phone=number, push=Push("Hello", "Knock"), sms=SMS))
            if n == 40:
                node.kill()
            if n == 80:
                node.begin()
    for id_ in ids:
        assert system.ended(id_).state == "texted"
    assert {number: _texted(system, number) for number in numbers} == dict.fromkeys(numbers, 1)
    eventually(lambda: system.redis.zcard(INBOX_ACCEPTED) == 0, why=system.logs)


def test_over_tls_producers_workers_and_doctor_trust_the_named_authority_and_no_other(
    system: System, node: RabbitMq, settings: Settings, tmp_path: Path
) -> None:
    system.stop_workers()
    with TlsPort(tmp_path / "tls", node.port) as port:
        strange = f"amqps://guest:guest@127.0.0.1:{port.port}//"
        url = f"{strange}?ssl_ca_certs={port.authority}"
        worker = system.start_worker(KNOCKTWICE_BROKER_URL=url)
        with Client(url, state_url=system.state_url) as client:
            id_ = client.notify(phone="+16505550606", sms=SMS)
        assert system.ended(id_).state == "texted"
        levels = {}
        for way in (url, strange):
            here = Services(settings.model_copy(update={"broker_url": way}))
            (levels[way],) = (check.level for check in doctor.examine(here) if check.name == "rabbitmq")
            here.close()
        assert levels == {url: "ok", strange: "error"}
        # Nothing is said to a stranger: the message waits in the inbox, and the worker's sweep publishes it.
        with Client(strange, state_url=system.state_url) as client:
            id_ = client.notify(phone="+16505550607", sms=SMS)
        assert system.ended(id_).state == "texted"
        worker.stop()
