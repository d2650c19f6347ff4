"""A day under one set of rules: the real pipeline on a database of its own, one process, and a clock that is moved."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.audience import people as audience
from knocktwice_worker.brake import guard, watch
from knocktwice_worker.channels.channel import Wiring
from knocktwice_worker.channels.opened import Channels
from knocktwice_worker.channels.outbound.provider_choice import Providers
from knocktwice_worker.channels.provider import Rate
from knocktwice_worker.config import Settings
from knocktwice_worker.database import engine, migrations
from knocktwice_worker.embedded.servers import EmbeddedServers
from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.limits.counting import Counting
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.services import CONNECTIONS, Services
from knocktwice_worker.simulated import outcome, paces, traffic
from knocktwice_worker.simulated.clock import Clock
from knocktwice_worker.simulated.people import invent
from knocktwice_worker.simulated.world import PretendedPush, Told, Wire, World, luck_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.limits.asks import Answer, Ask
    from knocktwice_worker.simulated.file import Day, RuleSet
    from knocktwice_worker.simulated.outcome import Outcome
    from knocktwice_worker.simulated.people import Person
    from knocktwice_worker.simulated.traffic import Call
    from knocktwice_worker.simulated.world import Said

_T = TypeVar("_T")

#: What is still open so long after the day is left as it is.
_TAIL = timedelta(days=2)
#: How often the brake looks; and for how long after a wave of pushes it looks at every step, because their SMS wait for
#: it.
_BRAKE_EVERY, _WAVE = timedelta(minutes=5), timedelta(minutes=3)
_OPEN = sa.text("SELECT min(wake_at) FROM deliveries WHERE wake_at IS NOT NULL")
_TASKS = {DeliveryState.SCHEDULED: "check", DeliveryState.RESERVED: "send", DeliveryState.SENDING: "reconcile"}


class PostgresCounting(Counting):
    """Limits that are counted by the simulation's clock: Redis would forget by its own."""

    def count(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        """Count messages against their numbers, marketing as well."""
        return count_in_postgres(conn, asks, self.limits, now) if asks else []

    def release(self, asks: Sequence[Ask], now: datetime) -> None:
        """Nothing: only rows count, and these have none."""


class NothingWaits(CatchUp):
    """The inbox of an installation that has carried out all that it has accepted, as this one has between two steps."""

    def about(self, subjects: Iterable[str]) -> set[str]:  # noqa: ARG002 - as its parent
        """Return nothing."""
        return set()

    def notifications(self, engine: Engine, ids: Sequence[str], *, left: bool = False) -> set[str]:  # noqa: ARG002 - as its parent
        """Return nothing."""
        return set()

    def people(self, engine: Engine, users: Sequence[str]) -> set[str]:  # noqa: ARG002 - as its parent
        """Return nothing."""
        return set()


@dataclass(frozen=True)
class Scratch:
    """Servers of the simulation's own, with the invented people in a database that each set of rules gets a copy of.

    Attributes:
        servers: where they are.
        home: their folder.
        day, seed: what is simulated.
        people: the people.
        calls: what the application sends.
    """

    servers: Servers
    home: Path
    day: Day
    seed: int
    people: Sequence[Person]
    calls: Sequence[Call]

    def run(
        self, name: str, settings: Mapping[str, Any], progress: Callable[[float], None] = lambda _: None
    ) -> Outcome:
        """Let the day happen under the rules of that name.

        Args:
            settings: the rules in force where the set says nothing, by field.
            progress: called with the share of the day that is over.
        """
        rules = self.day.rules[name]
        url = _copy(self.servers.database_url, list(self.day.rules).index(name))
        clock = Clock(self.day.begins)
        numbers = {one.number: one for one in self.people if one.number is not None}
        numbers |= {call.person.number: call.person for call in self.calls if call.person.number is not None}
        world = World(self.day, clock, numbers)
        own = {**settings, **rules.settings}
        here = _services(url, self.servers.broker_url, self.home, own, clock, world, self.day.step)
        here.redis.flushdb()
        random.seed(self.seed)
        try:
            _Day(here, clock, world, rules, self).live(progress)
            with here.engine.connect() as conn:
                return outcome.of(conn, self.day, world)
        finally:
            here.close()


@contextmanager
def scratch(home: Path, day: Day, seed: int) -> Iterator[Scratch]:
    """Start servers in an empty folder, and let the people of a day move in. Production's are not touched.

    Raises:
        NotInstalled: the embedded servers are not installed.
    """
    people = invent(day, seed)
    with EmbeddedServers(home) as servers:
        empty = sa.create_engine(servers.database_url)
        migrations.upgrade(empty)
        clock = Clock(day.begins)
        with empty.begin() as conn:
            clock.install(conn)
        empty.dispose()
        here = _services(servers.database_url, servers.broker_url, home, {}, clock, None)
        said = [change for person in people for change in person.said(day.begins)]
        for first in range(0, len(said), BATCH_LIMIT):
            with here.engine.begin() as conn:
                audience.apply(conn, said[first : first + BATCH_LIMIT])
        with here.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text("VACUUM ANALYZE"))
        here.close()
        yield Scratch(servers, home, day, seed, people, traffic.calls(day, seed, people))


def _services(
    database: str,
    broker: str,
    home: Path,
    rules: Mapping[str, Any],
    clock: Clock,
    world: World | None,
    step: timedelta = timedelta(),
) -> Services:
    """Return a worker's services, with the world in place of the network and the simulation's clock."""
    own: dict[str, Any] = {
        "database_url": database,
        "broker_url": broker,
        "home": home,
        "secret": "simulated",
        "fcm_project": "simulated",
        "twilio_account_sid": "AC" + "0" * 32,
        "twilio_auth_token": "simulated",
        "twilio_from": "+15005550006",
        "whatsapp_from": "+15005550009",
        "public_url": "http://simulated.invalid",
        "metrics": False,
    }
    defaults = {name: field.get_default() for name, field in Settings.model_fields.items()}
    here = Services(Settings(**{**defaults, **rules, **own}))
    parts: dict[str, Any] = vars(here)
    for name in ("engine", "senders"):
        parts[name] = engine.create(database, pool_size=CONNECTIONS, idle=timedelta(), ping=False)
        clock.follow(parts[name])
    parts["counting"] = PostgresCounting(redis=here.limits)
    accepted = here.catch_up
    parts["catch_up"] = NothingWaits(inbox=accepted.inbox, work=accepted.work, patience=accepted.patience)
    if world is not None:
        parts["push"], parts["transport"] = PretendedPush(), Wire(world)

    def pace(rate: Rate) -> Pace:
        return paces.pace(here.redis, name=rate.name, per_s=rate.per_s, step=step)

    parts["push_pace"] = pace(Rate("push", here.settings.push_per_s))
    parts["channels"] = Channels(
        Wiring(here.settings, "simulated"),
        pace=pace,
        # There is one provider of each channel.
        choice=lambda weights: Providers(here.redis, weights, share=1, sample=1, pause=_TAIL, patience=_TAIL),
    )
    return here


def _copy(url: str, n: int) -> str:
    """Return the address of a copy of a database to which nobody is connected."""
    of = sa.make_url(url)
    beside = sa.create_engine(of.set(database="postgres"), isolation_level="AUTOCOMMIT")
    name = f"day_{n}"
    with beside.connect() as conn:
        conn.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")
        conn.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {of.database}")
        # Nothing of it is kept, so nothing need be written through to the disk.
        conn.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
        conn.exec_driver_sql(f"ALTER DATABASE {name} SET jit = off")
    beside.dispose()
    return of.set(database=name).render_as_string(hide_password=False)


@dataclass
class _Day:
    """A day that happens.

    Attributes:
        here: the installation.
        clock: its time.
        world: what is around it.
        rules: the set of rules.
        of: who and what there is.
    """

    here: Services
    clock: Clock
    world: World
    rules: RuleSet
    of: Scratch

    def live(self, progress: Callable[[float], None]) -> None:
        """Let it happen, step by step."""
        day, calls = self.of.day, self.of.calls
        times = [call.at for call in calls]
        sent, braked_at, wave_at = 0, self.clock.now, day.begins - _WAVE
        end = day.begins + timedelta(days=1) + _TAIL
        brakes, pumping = watch.Rules.of(self.here.settings), guard.Rules.of(self.here.settings)
        while (at := self._next(times[sent] if sent < len(times) else None)) is not None and at <= end:
            self.clock.now = at
            paces.tell(self.here.redis, at)
            self._hear(self.world.said())
            until = bisect_right(times, at)
            self._call(calls[sent:until])
            if until - sent >= self.here.settings.brake_sample:
                wave_at = at
            sent = until
            attacked = any(day.moment(a.begins) <= at <= day.moment(a.begins) + a.lasts + _WAVE for a in day.attacks)
            if at - braked_at >= _BRAKE_EVERY or at - wave_at <= _WAVE or attacked:
                braked_at = at
                watch.refresh(self.here.engine, brakes)
                if day.attacks:
                    guard.refresh(self.here.engine, pumping)
            self._work()
            progress(min(1.0, (at - day.begins) / timedelta(days=1)))

    def _next(self, call: datetime | None) -> datetime | None:
        """Return the next step at which anything happens."""
        with self.here.engine.connect() as conn:
            wakes = conn.execute(_OPEN).scalar()
        first = min((at for at in (call, self.world.next, wakes) if at is not None), default=None)
        if first is None:
            return None
        day = self.of.day
        steps = -((day.begins - first) // day.step)
        return max(day.begins + steps * day.step, self.clock.now + day.step)

    def _hear(self, said: Said) -> None:
        """Write down what apps, the application and providers have said."""
        for events in _parts(said.receipts):
            receipts.record(self.here.engine, events)
        for ids in _parts(said.cancelled):
            cancellation.cancel(self.here.engine, ids, ())
        for reports in _parts(said.reports):
            with self.here.engine.begin() as conn:
                provider_reports.accept(conn, reports)
            ids = [report.provider_id for report in reports]
            provider_reports.bring_and_take_up(self.here.engine, ids, self.here.settings.useless_after)

    def _call(self, calls: Sequence[Call]) -> None:
        for call in calls:
            luck = luck_of(self.of.seed, call.n)
            self.world.told[str(call.id)] = Told(call.person, call.traffic, self.clock.now, luck)
        group: list[Batch] = []
        room = BATCH_LIMIT
        for batch in traffic.batches(self.of.day, self.rules, calls):
            # Workers gather what waits in a queue, too.
            if len(batch.recipients) > room:
                self.here.pushes.send_all(group)
                group, room = [], BATCH_LIMIT
            group.append(batch)
            room -= len(batch.recipients)
        if group:
            self.here.pushes.send_all(group)

    def _work(self) -> None:
        """Do what is due. In the order of the ids, so that it is the same every time."""
        due: dict[str, list[str]] = defaultdict(list)
        full = True
        while full:
            with self.here.engine.begin() as conn:
                rung, _ = store.ring(conn, limit=BATCH_LIMIT, lease=self.here.settings.lease)
            for row in rung:
                due["resume" if row.step == 0 else _TASKS[DeliveryState(row.state)]].append(row.notification_id)
            full = len(rung) == BATCH_LIMIT
        for page in _pages(due["resume"]):
            self.here.pushes.resume(page)
        for page in _pages(due["check"]):
            due["send"] += self.here.fallback.check(page)
        for page in _pages(due["send"]):
            self.here.later_steps.send(page)
        for page in _pages(due["reconcile"]):
            self.here.reconcile.resolve(page)


def _pages(ids: list[str]) -> Iterator[Sequence[str]]:
    yield from _parts(sorted(ids))


def _parts(all_: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(all_), BATCH_LIMIT):
        yield all_[first : first + BATCH_LIMIT]
