"""Celery's own options and addresses do what Celery's documents say,
and what cannot work is refused with a sentence.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from flower.utils.broker import Broker, RedisSentinel
from kombu import Connection

from knocktwice import Client, KnocktwiceError, Push, Recipient, Sms
from knocktwice.address import find
from knocktwice_shared import rabbitmq, sentinels
from knocktwice_shared.names import Queue
from knocktwice_worker.celery import app
from knocktwice_worker.config import ConfigurationError, Settings, load
from knocktwice_worker.embedded import installation
from knocktwice_worker.runtime import flower_guard, pools
from support.own_valkey import OwnValkey
from support.sentinel import Guarded
from support.system import System, eventually
from support.tls_port import TlsPort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

PHONE = "+16505550143"
TEXT = "Your table by the window is ready"


def _celery(home: Path, broker_url: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", *words],
        cwd=home,
        env={**os.environ, "KNOCKTWICE_HOME": str(home), "KNOCKTWICE_BROKER_URL": broker_url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_worker_logs_where_and_what_celery_is_told_but_no_personal_data(
    database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    with System(database_url, valkey_url, tmp_path) as system:
        system.start_worker(options=["--pool=solo", f"--logfile={tmp_path}/%n.log", "--loglevel=debug"])
        person = Recipient(phone=PHONE)
        (id_,) = system.client.notify_many([person], push=None, sms=Sms(TEXT))
        eventually(lambda: (told := system.story(id_)) and told.state == "texted", why=system.logs)
        log = (tmp_path / "w1.log").read_text()
    assert "[debug" in log
    assert "batches accepted" in log
    assert PHONE.removeprefix("+") not in log
    assert TEXT not in log


def test_a_worker_under_celery_multi_keeps_its_log(database_url: str, valkey_url: str, tmp_path: Path) -> None:
    files = [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log", "--loglevel=INFO"]
    servers = {"KNOCKTWICE_DATABASE_URL": database_url}
    log, pid = tmp_path / "detached.log", tmp_path / "detached.pid"
    told = _celery(
        tmp_path, valkey_url, "multi", "start", "detached@here", "-A", "knocktwice_worker", *files, **servers
    )
    try:
        assert told.returncode == 0, told
        eventually(lambda: log.exists() and "ready" in log.read_text())
    finally:
        _celery(tmp_path, valkey_url, "multi", "stopwait", "detached@here", *files[:1])
    assert not pid.exists()


@pytest.mark.parametrize("pool", ["prefork", "processes"])
def test_a_pool_that_does_not_work_is_refused(pool: str, valkey_url: str, tmp_path: Path) -> None:
    done = _celery(tmp_path, valkey_url, "-A", "knocktwice_worker", "worker", "-P", pool)
    assert done.returncode == 1
    assert "do not run in the pool prefork" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "my.own:Pool"])
def test_pools_of_other_packages_are_refused(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["celery", "worker"])
    with pytest.raises(SystemExit, match=f"do not run in the pool {pool}: .*--pool=solo"):
        pools.refuse_unfit(pool)


def test_each_queue_has_its_own_exchange_and_key(valkey_url: str, valkey: redis.Redis) -> None:
    queues = app.amqp.queues
    assert {name: (queue.exchange.name, queue.routing_key) for name, queue in queues.items()} == {
        queue.value: (queue.value, queue.value) for queue in Queue
    }
    events = Queue.EVENTS.value
    # An earlier version bound all queues to one exchange.
    for queue in Queue:
        valkey.sadd(f"_kombu.binding.{events}", "\x06\x16".join([events, "", queue.value]))
    with Connection(valkey_url) as connection:
        for queue in queues.values():
            queue(connection.default_channel).declare()
        connection.Producer().publish({}, exchange=events, routing_key=events)
    assert {queue.value: valkey.llen(queue.value) for queue in Queue if valkey.llen(queue.value)} == {events: 1}


@pytest.fixture
def private(tmp_path: Path) -> Iterator[TlsPort]:
    with OwnValkey(tmp_path / "valkey") as valkey, TlsPort(tmp_path / "tls", valkey.port) as port:
        yield port


def _lengths(settings: Settings) -> list[dict[str, Any]]:
    """The queues as Flower's page of the broker shows them."""
    broker = installation.celery_broker(settings)
    with Connection(broker.url) as connection:
        # So Flower learns of it: of several parts it sees the first.
        url = connection.as_uri(include_password=True)
    asked = Broker(url, broker_options=broker.options, broker_use_ssl=broker.tls or False)
    return asyncio.run(asked.queues([Queue.PUSH.value]))


def test_tls_with_a_private_authority_works_for_producer_worker_and_flower(private: TlsPort, tmp_path: Path) -> None:
    url = f"rediss://127.0.0.1:{private.port}/0?ssl_ca_certs={private.authority}"
    settings = Settings(broker_url=url, home=tmp_path)
    with Client(url) as client:
        client.notify(registrations=["a-registration"], push=Push("Hello", "Knock knock"))
    with installation.connect_redis(url) as plain:
        assert plain.llen(Queue.PUSH.value) == 1
    assert _lengths(settings) == [{"name": Queue.PUSH.value, "messages": 1}]
    broker = installation.celery_broker(settings)
    with Connection(broker.url, ssl=broker.tls) as connection:
        assert connection.default_channel.client.llen(Queue.PUSH.value) == 1
    # Without the authority nobody trusts the server.
    strange = Client(f"rediss://127.0.0.1:{private.port}/0")
    with pytest.raises(KnocktwiceError, match="certificate verify failed"):
        strange.notify(registrations=["a-registration"], push=Push("Hello", "Knock knock"))


def test_flower_asks_every_sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Guarded(tmp_path / "servers") as guarded:
        settings = Settings(broker_url=guarded.url, home=tmp_path)
        found = installation.celery_broker(settings).sentinels
        assert found is not None
        monkeypatch.setattr(RedisSentinel, "_get_redis_client", flower_guard.asking_all(found))
        with Client(guarded.url) as client:
            client.notify(registrations=["a-registration"], push=Push("Hello", "Knock knock"))
        assert _lengths(settings) == [{"name": Queue.PUSH.value, "messages": 1}]


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://a:1;sentinel://:pw@b/2?master_name=knocks&sentinel_password=s%2Fs",
        "sentinel://:pw@a:1/2?master_name=knocks;sentinel://b/0?sentinel_password=s%2Fs",
    ],
)
def test_all_sentinels_of_a_url_are_kept_wherever_its_query_stands(url: str) -> None:
    found = sentinels.parse(url)
    assert found.hosts == (("a", 1), ("b", 26_379))
    assert (found.master, found.db) == ("knocks", 2)
    assert (found.login, found.server_login) == ({"password": "s/s"}, {"password": "pw"})
    assert found.url == "sentinel://:pw@a:1/2;sentinel://:pw@b/2"
    producers = find(url)
    assert producers.url == found.url
    assert producers.transport_options(5)["master_name"] == "knocks"
    assert producers.transport_options(5)["sentinel_kwargs"]["password"] == "s/s"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://guest:hush@localhost//", "must be Redis or Valkey"),
        ("amqp://guest:hush@localhost:port//", "is no URL of RabbitMQ"),
        ("amqp://guest:hush@localhost;redis://localhost", "is no URL of RabbitMQ"),
        ("amqps://guest:hush@localhost?ssl_cert_reqs=none", "is no URL of RabbitMQ"),
        ("sentinel://:hush@a:port/0", "is no URL of Sentinels"),
        ("rediss://:hush@a/0?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of required, optional, none"),
    ],
)
def test_a_broker_that_a_worker_cannot_use_is_refused(url: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", url)
    with pytest.raises(ConfigurationError, match=f"KNOCKTWICE_BROKER_URL: {problem}") as refused:
        installation.celery_broker(load())
    assert "hush" not in str(refused.value)


def test_rabbitmq_needs_a_place_of_state_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", "amqp://guest:hush@localhost//")
    monkeypatch.delenv("KNOCKTWICE_STATE_URL", raising=False)
    with pytest.raises(ConfigurationError, match=r"KNOCKTWICE_STATE_URL must be set: .* like redis://host:6379/0"):
        load()
    with pytest.raises(KnocktwiceError, match=r"pass Client\(state_url=…\) or set KNOCKTWICE_STATE_URL, like redis://"):
        Client()
    monkeypatch.setenv("KNOCKTWICE_STATE_URL", "amqp://guest:hush@localhost//")
    with pytest.raises(ConfigurationError, match="KNOCKTWICE_STATE_URL: must be Redis or Valkey") as refused:
        load()
    assert "hush" not in str(refused.value)
    with pytest.raises(KnocktwiceError, match="KNOCKTWICE_STATE_URL must start with redis://") as told:
        Client()
    assert "hush" not in str(told.value)
    monkeypatch.setenv("KNOCKTWICE_STATE_URL", "redis://localhost/0")
    Client()
    broker = installation.celery_broker(load())
    assert (broker.url, broker.rabbitmq) == ("amqp://guest:hush@localhost//", True)
    assert installation.state_url(load()) == "redis://localhost/0"


def test_a_second_redis_as_the_place_of_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages would be accepted in one, and a worker would look for them in the other."""
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", "redis://one/0")
    monkeypatch.setenv("KNOCKTWICE_STATE_URL", "redis://two/0")
    with pytest.raises(ConfigurationError, match="KNOCKTWICE_STATE_URL is for RabbitMQ only"):
        load()
    with pytest.raises(KnocktwiceError, match="state_url is needed only with RabbitMQ"):
        Client("redis://one/0", state_url="redis://two/0")
    monkeypatch.setenv("KNOCKTWICE_STATE_URL", "redis://one/0")
    assert installation.state_url(load()) == "redis://one/0"


def test_tls_to_rabbitmq_always_checks_whom_it_speaks_to() -> None:
    found = rabbitmq.parse("amqps://u:p@one/v?ssl_ca_certs=/etc/ca.pem;amqps://u:p@two:5672/v")
    assert found.url == "amqps://u:p@one/v;amqps://u:p@two:5672/v"
    assert found.tls == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, "ca_certs": "/etc/ca.pem"}
    assert rabbitmq.parse("amqp://u:p@one//").tls is None
