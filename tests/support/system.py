"""The system under test as its users know it: a client in front, worker processes, and the sandbox's books behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from knocktwice import Client, Push, Recipient
from knocktwice_worker.embedded import installation
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.reporting.story import Story, tell
from knocktwice_worker.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self
    from uuid import UUID

    from redis import Redis

    from knocktwice import Sms

_T = TypeVar("_T")

#: Long enough for a slow machine; only a failing test waits that long.
PATIENCE_S = 60

#: What operators have, for tests in which nothing breaks: a slow machine must not look like a dead provider.
PATIENT = {"KNOCKTWICE_LEASE_S": "60", "KNOCKTWICE_PROVIDER_TIMEOUT_S": "20"}

#: Everything that recovers does so within a second or two instead of minutes.
IMPATIENT = {
    "KNOCKTWICE_TICK_S": "0.05",
    "KNOCKTWICE_LEASE_S": "3",
    "KNOCKTWICE_INBOX_GRACE_S": "1",
    "KNOCKTWICE_SMS_UNKNOWN_GRACE_S": "1",
    "KNOCKTWICE_PROVIDER_TIMEOUT_S": "1.4",
    "KNOCKTWICE_SECRET": "test",
}

PUSH = Push("Your table is ready", "We keep it until 19:45.")


def eventually(look: Callable[[], _T | None], *, within: float = PATIENCE_S, why: Callable[[], str] = lambda: "") -> _T:
    """Look again and again until there is something to see, and return it; fail if that never happens."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true within {within} s; last seen: {seen!r} {why()}")
        pause.wait(0.03)
    return seen


@dataclass
class System:
    """One installation.

    Attributes:
        database_url, broker_url: its servers.
        state_url: with RabbitMQ as the broker, the place of state.
        home: logs and credentials.
        settings: environment for its workers, beyond the impatient defaults.
    """

    database_url: str
    broker_url: str
    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    state_url: str | None = None
    workers: list[Child] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.client = self._stack.enter_context(Client(self.broker_url, state_url=self.state_url))
        self.sandbox = self._stack.enter_context(Sandbox(report=lambda event: self.client.record_receipts([event])))
        self.engine = sa.create_engine(self.database_url, pool_pre_ping=True)
        self.redis: Redis = installation.connect_redis(self.state_url or self.broker_url)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.redis.close()
        self.engine.dispose()
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a worker of this installation needs to know."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KNOCKTWICE_", "CELERY_", "TWILIO_"))}
        here = {
            "KNOCKTWICE_DATABASE_URL": self.database_url,
            "KNOCKTWICE_BROKER_URL": self.broker_url,
            "KNOCKTWICE_STATE_URL": self.state_url or "",
            "KNOCKTWICE_HOME": str(self.home),
        }
        return {**inherited, **IMPATIENT, **self.sandbox.environment(self.home), **here, **self.settings}

    def start_worker(
        self, application: str = "knocktwice_worker", options: Sequence[str] = (), **environment: str
    ) -> Child:
        """Start one worker process, with these options of Celery's; it need not be ready yet."""
        number = len(self.workers) + 1
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            application,
            "worker",
            "-n",
            f"w{number}@test",
            "--without-gossip",
            *options,
        ]
        path = os.pathsep.join(p for p in sys.path if p)
        log = self.home / f"worker{number}.log"
        env = {**self.environment, "PYTHONPATH": path, **environment}
        worker = Child(f"worker {number}", argv, log, env=env)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """Stop all workers in order, as SIGTERM does."""
        for worker in self.workers:
            worker.stop()

    def notify(self, person: str, *, sms: Sms | None = None, registration: str | None = None) -> UUID:
        """Notify somebody at a phone number, with one device unless told otherwise."""
        registrations = (registration or f"silent-{person[1:]}",)
        (id_,) = self.client.notify_many([Recipient(registrations=registrations, phone=person)], push=PUSH, sms=sms)
        return id_

    def story(self, id_: UUID) -> Story | None:
        """What is known about a notification."""
        with self.engine.connect() as conn:
            return tell(conn, str(id_))

    def ended(self, id_: UUID) -> Story:
        """Wait until a notification has ended and return its story."""
        return eventually(lambda: told if (told := self.story(id_)) and told.finished_at else None, why=self.logs)

    def waiting(self, id_: UUID) -> Story:
        """Wait until a notification's push is settled and only its countdown is open."""

        def look() -> Story | None:
            told = self.story(id_)
            settled = told and told.steps and all(s.state == "scheduled" or s.channel == "push" for s in told.steps)
            return told if settled and told and told.steps[0].state != "sending" else None

        return eventually(look, why=self.logs)

    def count(self, query: str, **values: object) -> int:
        """Run a counting query."""
        with self.engine.connect() as conn:
            return int(conn.execute(sa.text(query), values).scalar_one())

    def logs(self) -> str:
        """The ends of the workers' logs, for failures."""
        return "\n".join(f"--- {w.name}\n{w.log_tail(40)}" for w in self.workers)


def verdicts(told: Story) -> list[str]:
    """The kinds of moments in a story, in order."""
    return [moment.kind for moment in told.moments]
