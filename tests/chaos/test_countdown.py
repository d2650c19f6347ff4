"""The countdown is Postgres's: it outlives every process, and waiting costs workers nothing."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil

from knocktwice import Push, Recipient, Sms
from support.clock import Clock
from support.system import PATIENT, eventually

if TYPE_CHECKING:
    from knocktwice_worker.embedded.servers import EmbeddedServers
    from support.system import System

TWO_HOURS = timedelta(hours=2)
NUMBER = "+16505550400"


def test_a_check_in_two_hours_fires_once_whatever_restarts_in_between(system: System, doomed: EmbeddedServers) -> None:
    clock = Clock(system.database_url)
    first, _ = system.start_worker(), system.start_worker()
    id_ = system.notify(NUMBER, sms=Sms(after=TWO_HOURS))
    system.waiting(id_)
    clock.advance(timedelta(hours=1))
    first.kill()
    system.start_worker()
    doomed.valkey.restart()
    doomed.postgres.restart(by=signal.SIGQUIT)
    clock.advance(timedelta(minutes=59))
    told = system.story(id_)
    assert told
    assert told.state == "active"
    clock.advance(timedelta(minutes=1))
    assert system.ended(id_).state == "texted"
    assert len(system.sandbox.texts(NUMBER)) == 1
    # The push that is taken off the screen has a line of its own.
    fired = "SELECT count(*) FROM decisions WHERE notification_id = :id AND verdict <> 'withdrawn'"
    assert system.count(fired, id=str(id_)) == 1


def test_ten_thousand_pending_checks_cost_a_worker_no_memory(system: System) -> None:
    system.settings |= PATIENT
    worker = system.start_worker()
    sizes = []
    # The first is to warm up: as many at once, for connections, threads and buffers.
    for name in ("warm", "cold", "again", "still"):
        _knock(system, 10_000, name)
        sizes.append(psutil.Process(worker.pid).memory_info().rss)
    # As Celery countdowns they would take 86 MB, each time. Sixty-four threads' buffers come and go by some twenty.
    grown = min(after - before for before, after in itertools.pairwise(sizes))
    assert grown < 15_000_000, f"grew from {sizes}"
    assert system.redis.llen("knocktwice.fallback") == 0


def _knock(system: System, people: int, name: str) -> None:
    before = system.count("SELECT count(*) FROM deliveries WHERE state = 'sent'")
    system.client.notify_many(
        [Recipient(registrations=(f"silent-{name}-{n}",), phone=NUMBER) for n in range(people)],
        push=Push("a", "b"),
        sms=Sms(after=TWO_HOURS),
    )
    pushed = "SELECT count(*) FROM deliveries WHERE state = 'sent'"
    eventually(lambda: system.count(pushed) == before + people, within=120, why=system.logs)
