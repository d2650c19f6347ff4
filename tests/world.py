"""An installation whose workers are told what to do one thing at a time, and what must be true of it afterwards."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import structlog

from clock import Clock
from databases import new_database
from interleaving import Interleaver
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import (
    Cancellation,
    DeviceRegistered,
    PhoneBound,
    Receipt,
    ReceiptEvent,
    UserErased,
    parse_batch,
)
from knocktwice_shared.names import Task
from knocktwice_worker import (
    audience,
    blasts,
    callbacks,
    cancellation,
    erasure,
    fallback,
    push,
    receipts,
    reconcile,
    rollups,
    services,
    sms,
)
from knocktwice_worker.callbacks import Callback, InboundText
from knocktwice_worker.config import Settings
from knocktwice_worker.dispatcher import dispatch
from knocktwice_worker.lifecycle import FALL_BACK, ProviderState
from knocktwice_worker.opt_out_words import Wish
from knocktwice_worker.sandbox import Sandbox
from knocktwice_worker.webhooks import events
from life import recount, rolled_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.embedded import Servers
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


@dataclass
class Case:
    """One notification, and everything that can be done to it. A ``silent`` one must never be texted."""

    world: World
    batch: Batch
    number: str
    registration: str
    user: str | None = None
    silent: bool = False

    @property
    def id(self) -> str:
        return str(self.batch.recipients[0].id)

    @property
    def texts(self) -> int:
        return len(self.world.sandbox.texts(self.number))

    def accept(self) -> None:
        push.send_all(self.world.here, [erasure.without_erased(self.world.here, self.batch)])

    def resume(self) -> None:
        push.resume(self.world.here, [self.id])

    def check(self) -> None:
        fallback.check(self.world.here, [self.id])

    def send(self) -> None:
        sms.send(self.world.here, [self.id])

    def decide_and_send(self) -> None:
        sms.send(self.world.here, fallback.check(self.world.here, [self.id]))

    def reconcile(self) -> None:
        reconcile.resolve(self.world.here, [self.id])

    def cancel(self) -> None:
        cancellation.cancel(self.world.here, Cancellation(ids=(UUID(self.id),)))

    def click(self, kind: Receipt = Receipt.CLICKED) -> None:
        said = ReceiptEvent(UUID(self.id), kind, datetime.now(UTC), self.registration)
        receipts.record(self.world.here, [said])

    def deliver(self) -> None:
        self.click(Receipt.DELIVERED)

    def stop(self) -> None:
        with self.world.here.engine.begin() as conn:
            callbacks.receive(conn, [InboundText(f"SM-stop-{self.id}", self.number, Wish.STOP)])

    def report(self, *statuses: ProviderState, step: int = 1) -> None:
        """The provider calls back about a step, as the address it was given names it."""
        said = [Callback(self.sid(step), status, datetime.now(UTC), intent=(self.id, step)) for status in statuses]
        with self.world.here.engine.begin() as conn:
            callbacks.accept(conn, said)
        with self.world.here.engine.begin() as conn:
            callbacks.bring(conn, {self.sid(step)})

    def sid(self, step: int) -> str:
        to = (
            f"whatsapp:{self.number}" if self.batch.plan and self.batch.plan[step - 1].channel != "sms" else self.number
        )
        taken = self.world.sandbox.texts(to)
        return taken[-1].sid if taken else f"SM-{self.id}-{step}"

    def erase(self) -> None:
        if self.user:
            change = UserErased(self.user, self.world.now())
            self.world.erased.add(self.user)
            try:
                erasure.erase_all(self.world.here, [change])
            except erasure.Unsettled:
                self.world.unsettled[self.user] = change

    def rows(self, query: str) -> list[Any]:
        with self.world.here.engine.connect() as conn:
            return list(conn.execute(sa.text(query), {"id": self.id}).all())

    def steps(self) -> list[str]:
        query = "SELECT state FROM deliveries WHERE notification_id = :id ORDER BY step"
        return [row.state for row in self.rows(query)]

    def state(self) -> str:
        (row,) = self.rows("SELECT state FROM notifications WHERE id = :id")
        return str(row.state)

    def ledger(self) -> list[str]:
        return [
            row.verdict for row in self.rows("SELECT verdict FROM decisions WHERE notification_id = :id ORDER BY id")
        ]


def check_all(*cases: Case) -> None:
    fallback.check(cases[0].world.here, [case.id for case in cases])


def send_all(*cases: Case) -> None:
    sms.send(cases[0].world.here, [case.id for case in cases])


def resume_all(*cases: Case) -> None:
    push.resume(cases[0].world.here, [case.id for case in cases])


def cancel_all(*cases: Case) -> None:
    cancellation.cancel(cases[0].world.here, Cancellation(ids=tuple(UUID(case.id) for case in cases)))


def click_all(*cases: Case) -> None:
    said = [ReceiptEvent(UUID(c.id), Receipt.CLICKED, datetime.now(UTC), c.registration) for c in cases]
    receipts.record(cases[0].world.here, said)


@contextmanager
def installed(servers: Servers, home: Path) -> Iterator[World]:
    """Set up an installation in a database and a keyspace of its own, whose deadlocks are noticed soon."""
    broker = f"{servers.broker_url}?virtual_host=2"
    with pytest.MonkeyPatch.context() as patch, new_database(servers) as url, Sandbox() as sandbox:
        for name, value in sandbox.environment(home).items():
            patch.setenv(name, value)
        client = services.connect_redis(broker)
        client.flushdb()
        client.close()
        here = services.Services(Settings(database_url=url, broker_url=broker, secret="test", home=home))
        for engine in (here.engine, here.senders):
            sa.event.listen(engine, "connect", _impatient)
        yield World(here, Clock(url), sandbox)
        here.close()


def _impatient(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '20ms'")
    connection.commit()


@dataclass
class World:
    """Everything that notifications need, and the notifications."""

    here: Services
    clock: Clock
    sandbox: Sandbox
    cases: list[Case] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    unsettled: dict[str, UserErased] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget earlier cases, and let nobody write logs."""
        self.cases.clear()
        self.erased.clear()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

    @contextmanager
    def meetings(self) -> Iterator[Interleaver]:
        """Let operations of this installation meet."""
        watch = sa.create_engine(self.here.settings.database_url or "")
        with Interleaver([self.here.engine, self.here.senders], watch) as between:
            yield between
        watch.dispose()

    def case(self, *, user: bool = False, number: str | None = None, key: str | None = None, **fields: Any) -> Case:
        """Make a notification to a person of its own; nothing has heard of it yet."""
        n = next(_numbers)
        number, registration, name = number or f"+1650{n:07}", f"silent-{n}", f"user-{n}" if user else None
        who: dict[str, Any] = {"registrations": [registration], "phone": number}
        if name:
            self.know(DeviceRegistered(name, registration, SAID), PhoneBound(name, number, SAID))
            who = {"user": name}
        who |= {"key": key} if key else {}
        wire = {"v": 1, "id": str(uuid7()), "content": CONTENT, "recipients": [{"id": str(uuid7()), **who}], **fields}
        case = Case(self, parse_batch(wire), number, registration, name)
        self.cases.append(case)
        return case

    def accepted(self, **fields: Any) -> Case:
        """Make one whose push is out."""
        case = self.case(**fields)
        case.accept()
        return case

    def reserved(self, **fields: Any) -> Case:
        """Make one whose SMS may go."""
        case = self.accepted(**{"plan": NOW, **fields})
        case.check()
        return case

    def know(self, *changes: Any) -> None:
        with self.here.engine.begin() as conn:
            audience.apply(conn, changes)

    def now(self) -> datetime:
        with self.here.engine.connect() as conn:
            now: datetime = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        return now

    def in_hours(self, hours: float) -> str:
        return (self.now() + timedelta(hours=hours)).isoformat()

    def perform(self, task: Task, ids: Sequence[str]) -> None:
        """Do what a worker does with a message, and what follows from it."""
        match task:
            case Task.RESUME_PUSH:
                push.resume(self.here, ids)
            case Task.CHECK_FALLBACK:
                sms.send(self.here, fallback.check(self.here, ids))
            case Task.SEND_SMS:
                sms.send(self.here, ids)
            case Task.RECONCILE:
                reconcile.resolve(self.here, ids)
            case Task.EXPAND_BLAST:
                for id_ in ids:
                    blasts.step(self.here, id_, self.perform)
            case Task.SEND_PAGE:
                for id_ in ids:
                    blasts.send_page(self.here, id_, self.perform)
            case _:
                raise AssertionError(task)

    def work(self) -> None:
        """Do what is due until nothing is."""
        while True:
            blasts.ring(self.here, self.perform)
            if not dispatch(self.here, self.perform):
                return

    def live_on(self) -> None:
        """Let all delays, leases and retries pass, and do what comes up."""
        self.work()
        for _ in range(3):
            self.clock.advance(timedelta(hours=12))
            with self.here.engine.begin() as conn:
                callbacks.bring(conn)
            for user, change in list(self.unsettled.items()):
                del self.unsettled[user]
                try:
                    erasure.erase_all(self.here, [change])
                except erasure.Unsettled:
                    self.unsettled[user] = change
            self.work()

    def must_be_whole(self) -> None:
        """Check what must be true however things met."""
        ids = [case.id for case in self.cases]
        with self.here.engine.connect() as conn:
            states = {str(r.id): r for r in conn.execute(_NOTIFICATIONS, {"ids": ids})}
            steps = conn.execute(_STEPS, {"ids": ids}).all()
            ledger = Counter((str(r.notification_id), r.step, r.verdict) for r in conn.execute(_LEDGER, {"ids": ids}))
            wasted = {str(r.notification_id) for r in conn.execute(_NEEDLESS, {"ids": ids})}
        stuck = {i: r.state for i, r in states.items() if r.state == "active" or not r.reason or r.open}
        assert not stuck
        for row in steps:
            _must_agree(row, ledger)
        noted = {i: n for (i, _, verdict), n in ledger.items() if verdict == "wasted_sms"}
        assert noted == dict.fromkeys(wasted, 1)
        with self.here.engine.connect() as conn:
            assert not [user for user in self.erased if any(erasure.left(conn, user).values())]
        for case in self.cases:
            assert not (case.silent and case.texts), case.number
            assert case.texts <= sum(s.channel == "sms" for s in case.batch.plan or ())
            assert len(self.sandbox.texts(f"whatsapp:{case.number}")) <= 1

    def numbers_must_agree(self) -> None:
        """Compare the roll-ups with a recount."""
        rollups.refresh(self.here.engine, "UTC", everything=True)
        with self.here.engine.connect() as conn:
            assert rolled_up(conn) == recount(conn)

    def must_be_told_in_order(self) -> None:
        """Check that webhooks begin with the acceptance and that each notification has one final report."""
        events.follow(self.here.engine)
        with self.here.engine.connect() as conn:
            told = conn.execute(_TOLD, {"ids": [case.id for case in self.cases]}).all()
        assert told
        assert not [row for row in told if row.told[0] != "notification.accepted" or row.finished != 1]


def _must_agree(row: Any, ledger: Counter[tuple[str, int, str]]) -> None:
    id_ = str(row.notification_id)
    if row.state in ("skipped", "cancelled"):
        assert ledger[id_, row.step, row.reason] >= 1, (id_, row.step, row.reason)
    else:
        assert sum(ledger[id_, row.step, str(verdict)] for verdict in FALL_BACK) == 1, (id_, row.step, ledger)


_NOTIFICATIONS = sa.text("""
SELECT n.id, n.state, n.reason, EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.wake_at IS NOT NULL) AS open
FROM notifications n WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")
_STEPS = sa.text("SELECT * FROM deliveries WHERE step > 0 AND notification_id = ANY(CAST(:ids AS uuid[]))")
_LEDGER = sa.text(
    "SELECT notification_id, step, verdict FROM decisions WHERE notification_id = ANY(CAST(:ids AS uuid[]))"
)
_NEEDLESS = sa.text("""
SELECT DISTINCT d.notification_id FROM deliveries d JOIN events e ON e.notification_id = d.notification_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sent' AND e.step < d.step
  AND (e.kind = 'clicked' AND d."when" IN ('not_clicked', 'not_delivered')
       OR e.kind = 'delivered' AND d."when" = 'not_delivered' AND e.step >= d.after_step)
""")
_TOLD = sa.text("""
SELECT n.id, coalesce(array_agg(w.type ORDER BY w.id) FILTER (WHERE w.type IS NOT NULL), '{nothing}') AS told,
  count(*) FILTER (WHERE w.type = 'notification.finished') AS finished
FROM notifications n LEFT JOIN webhook_events w ON w.notification_id = n.id WHERE n.id = ANY(CAST(:ids AS uuid[])) GROUP BY n.id
""")
