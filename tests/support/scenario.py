"""An installation whose workers do one thing at a time, when they are told to."""

from __future__ import annotations

import itertools
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import structlog

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, parse_batch
from knocktwice_worker import services
from knocktwice_worker.audience import people
from knocktwice_worker.config import Settings
from knocktwice_worker.embedded import installation
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.privacy import erasure
from knocktwice_worker.sandbox import Sandbox
from support import worker_tasks
from support.clock import Clock
from support.databases import lent_database
from support.interleaving import Interleaver
from support.one_notification import OneNotification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from knocktwice_shared.messages import UserErased
    from knocktwice_shared.names import Task
    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.services import Services

#: What was said of people in the tests.
SAID = datetime(2026, 1, 1, tzinfo=UTC)
LONG = 3600
CONTENT = {"push": {"title": "t", "body": "b"}}
NOW: list[dict[str, Any]] = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
LATER: list[dict[str, Any]] = [{"channel": "sms", "when": "not_clicked", "after_s": LONG}]
TWO: list[dict[str, Any]] = [
    {"channel": "whatsapp", "when": "not_delivered", "after_s": 0, "content_sid": "HX" + "0" * 32},
    {"channel": "sms", "when": "not_clicked", "after_s": LONG},
]
_numbers = itertools.count(1)


@contextmanager
def installed(servers: Servers, home: Path) -> Iterator[Scenario]:
    """Set up an installation in a database and a keyspace of its own, whose deadlocks are noticed soon."""
    broker = f"{servers.broker_url}?virtual_host=2"
    with pytest.MonkeyPatch.context() as patch, lent_database(servers) as url, Sandbox() as sandbox:
        for name, value in sandbox.environment(home).items():
            patch.setenv(name, value)
        client = installation.connect_redis(broker)
        client.flushdb()
        client.close()
        here = services.Services(Settings(database_url=url, broker_url=broker, secret="test", home=home))
        for engine in (here.engine, here.senders):
            sa.event.listen(engine, "connect", _impatient)
        yield Scenario(here, Clock(url), sandbox)
        here.close()


def _impatient(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '20ms'")
    connection.commit()


@dataclass
class Scenario:
    """Everything that notifications need, and the notifications."""

    here: Services
    clock: Clock
    sandbox: Sandbox
    notifications: list[OneNotification] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    unsettled: dict[str, UserErased] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget earlier cases, and let nobody write logs."""
        self.notifications.clear()
        self.erased.clear()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

    @contextmanager
    def meetings(self) -> Iterator[Interleaver]:
        """Let operations of this installation meet."""
        watch = sa.create_engine(self.here.settings.database_url or "")
        with Interleaver([self.here.engine, self.here.senders], watch, self._look_up_erased) as between:
            yield between
        watch.dispose()

    def _look_up_erased(self) -> None:
        self.here.erased._next_look = 0.0
        self.here.erased.recall(())

    def notification(
        self,
        *,
        user: bool = False,
        number: str | None = None,
        key: str | None = None,
        params: dict[str, Any] | None = None,
        **fields: Any,
    ) -> OneNotification:
        """Make a notification to a person of its own; nothing has heard of it yet."""
        n = next(_numbers)
        number, registration, name = number or f"+1650{2_000_000 + n}", f"silent-{n}", f"user-{n}" if user else None
        who: dict[str, Any] = {"registrations": [registration], "phone": number}
        if name:
            self.know(DeviceRegistered(name, registration, SAID), PhoneBound(name, number, SAID))
            who = {"user": name}
        who |= {name: value for name, value in (("key", key), ("params", params)) if value}
        wire = {"v": 1, "id": str(uuid7()), "content": CONTENT, "recipients": [{"id": str(uuid7()), **who}], **fields}
        case = OneNotification(self, parse_batch(wire), number, registration, name)
        self.notifications.append(case)
        return case

    def accepted(self, **fields: Any) -> OneNotification:
        """Make one whose push is out."""
        case = self.notification(**fields)
        case.accept()
        return case

    def reserved(self, **fields: Any) -> OneNotification:
        """Make one whose SMS may go."""
        case = self.accepted(**{"plan": NOW, **fields})
        case.check()
        return case

    def know(self, *changes: Any) -> None:
        with self.here.engine.begin() as conn:
            people.apply(conn, changes)

    def now(self) -> datetime:
        with self.here.engine.connect() as conn:
            now: datetime = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        return now

    def in_hours(self, hours: float) -> str:
        return (self.now() + timedelta(hours=hours)).isoformat()

    def perform(self, task: Task, ids: Sequence[str]) -> None:
        """Do what a worker does with a message, and what follows from it."""
        worker_tasks.perform(self.here, task, ids)

    def work(self) -> None:
        """Do what is due until nothing is."""
        worker_tasks.work(self.here)

    def live_on(self) -> None:
        """Let all delays, leases and retries pass, and do what comes up."""
        self.work()
        for _ in range(3):
            self.clock.advance(timedelta(hours=12))
            with self.here.engine.begin() as conn:
                provider_reports.bring(conn)
            for user, change in list(self.unsettled.items()):
                del self.unsettled[user]
                try:
                    self.here.erasure.erase_all([change])
                except erasure.Unsettled:
                    self.unsettled[user] = change
            self.work()
