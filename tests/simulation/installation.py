"""An installation to simulate: real PostgreSQL, real Valkey, the real tasks, and processes that are only jobs in threads."""

from __future__ import annotations

import copy
import gc
import itertools
import logging
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from knocktwice import address, wire
from knocktwice.broker import KombuBroker
from knocktwice.client import Client
from knocktwice_worker import services, tasks
from knocktwice_worker.celery import app
from knocktwice_worker.config import Settings
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.runtime import publishing
from simulation.clock import Clock
from simulation.keyspace import Keyspace
from simulation.provider import Wire
from simulation.sessions import Sessions
from simulation.turns import current
from support.databases import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from knocktwice.envelope import Outgoing
    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.services import Services
    from simulation.queues import Queues

#: Recovery within seconds, so that a run is short. Everything else is as operators have it who set nothing.
SETTINGS: dict[str, Any] = {
    "lease_s": 20,
    "provider_timeout_s": 6,
    "inbox_grace_s": 5,
    "sms_unknown_grace_s": 30,
    "sms_per_day": 4,
    "push_retry_s": 600,
}
#: As operators have it who set nothing.
DEFAULTS: dict[str, Any] = {}
#: Processes that work on queues, and those that do nothing but take receipts and inbound texts.
WORKERS, RECORDER, GATEWAY = ("w1", "w2", "w3"), "recorder", "gateway"
#: After so many new objects garbage is looked for; Python's own 700 do it several times in each step.
_GARBAGE = 100_000
#: How long a short transaction may be idle, as ``services/connections.py`` sets it.
_IDLE = timedelta(seconds=20)


class Application(Client):
    """The library, on the simulation's connection to Redis."""

    def __init__(self, broker_url: str, redis: Keyspace) -> None:
        self._broker = _Broker(broker_url, redis)

    def of(self, project: str, *, test: bool) -> Application:
        """Return the client of a project, or of its tests."""
        if not project and not test:
            return self
        made = copy.copy(self)
        made._project = wire.side(project or None, test=test)
        return made


class _Broker(KombuBroker):
    def __init__(self, broker_url: str, redis: Keyspace) -> None:
        super().__init__(address.find(broker_url), 5.0)
        self._ours: Any = _Connection(redis)

    def _accept_together(self, messages: Sequence[Outgoing]) -> Sequence[str]:
        # Each caller is an application of its own, whose calls have nobody to join.
        return self._accept(messages, confirm=True)

    @contextmanager
    def _turn(self) -> Iterator[Any]:
        yield self._ours


class _Connection:
    """As much of kombu's connection as the library uses."""

    def __init__(self, redis: Keyspace) -> None:
        self._redis = redis
        self.default_channel = self

    @contextmanager
    def conn_or_acquire(self) -> Iterator[Keyspace]:
        yield self._redis


class Installation:
    """What outlives the runs.

    Attributes:
        actors: each process by its name.
        wires: what carries its requests.
        queues: of the present run.
    """

    def __init__(self, database_url: str, broker_url: str, home: Path, given: dict[str, Any]) -> None:
        self.clock = Clock()
        self.sessions = Sessions(database_url, self.clock)
        self.redis = Keyspace(broker_url, self.clock)
        self.redis.flushdb()
        self.application = Application(broker_url, self.redis)
        self.settings = Settings(
            database_url=database_url,
            broker_url=broker_url,
            secret="test",
            home=home,
            fcm_project="p",
            twilio_account_sid="AC" + "0" * 32,
            twilio_auth_token="t",
            twilio_from="+15005550006",
            **given,
        )
        self.actors = {name: self._process(broker_url) for name in (*WORKERS, RECORDER, GATEWAY)}
        self.numbers = itertools.count()
        self.queues: Queues | None = None

    def _process(self, broker_url: str) -> Services:
        here = services.Services(self.settings)
        parts: dict[str, Any] = here.__dict__
        parts["redis"] = Keyspace(broker_url, self.clock)
        parts["transport"] = Wire(self.clock, self.settings.provider_timeout_s)
        # An access token that never ends; Google is not asked.
        here.push.__dict__["_credential"] = SimpleNamespace(valid=True, expired=False, token="t")
        self.sessions.follow(here.engine, _IDLE)
        self.sessions.follow(here.senders, 2 * self.settings.lease)
        return here

    @property
    def wires(self) -> Iterator[Wire]:
        """What carries the requests of all processes."""
        for here in self.actors.values():
            wire: Any = here.transport
            yield wire

    def phone(self) -> str:
        """Return a number that nobody has had."""
        n = next(self.numbers)
        return f"+1650{230 + n // 10_000}{n % 10_000:04}"

    def publish(
        self, name: str, args: list[Any], task_id: str, headers: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Put what a task publishes on the simulated queue."""
        if (job := current()) is not None:
            job.point(f"publish {name.removeprefix('knocktwice.')}")
        if self.queues is None:
            raise AssertionError("nothing runs")
        self.queues.publish(name, args[0], task_id, again=bool((headers or {}).get(publishing.AGAIN)))

    @contextmanager
    def watching(
        self, _engine: object, _candidates: object, not_after: Deadline, known: Deadline, _said: object
    ) -> Iterator[Deadline]:
        """In place of the thread that looks again by the machine's clock: it never gets a processor."""
        yield min(not_after, known)

    def close(self) -> None:
        """Close all connections."""
        for here in self.actors.values():
            here.close()
        self.redis.close()
        self.sessions.close()


@contextmanager
def installed(servers: Servers, home: Path, given: dict[str, Any] | None = None) -> Iterator[Installation]:
    """Set up an installation in a database and a keyspace of its own.

    Args:
        given: its settings; left out, those that recover within seconds.
    """
    with ExitStack() as stack:
        url = stack.enter_context(new_database(servers))
        broker = f"{servers.broker_url}?virtual_host=3"
        # It reports each session that ends.
        pool = logging.getLogger("sqlalchemy.pool")
        stack.callback(pool.setLevel, pool.level)
        pool.setLevel(logging.CRITICAL)
        # Other tests of this process look at what is logged.
        before = structlog.get_config()
        stack.callback(lambda: structlog.configure(**before))
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        here = Installation(url, broker, home, SETTINGS if given is None else given)
        stack.callback(here.close)
        stack.enter_context(here.clock.installed())
        patch.setattr(tasks, "steered", _of_this_job)
        patch.setattr(app, "send_task", here.publish)
        patch.setattr(PauseGate, "watching", here.watching)
        # What has been loaded stays, so looking through it for garbage again and again is in vain.
        gc.freeze()
        stack.callback(gc.unfreeze)
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(_GARBAGE)
        yield here


def _of_this_job() -> Services:
    job = current()
    if job is None:
        raise AssertionError("a task outside of a job")
    return job.here
