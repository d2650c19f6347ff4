"""Scheduled sends and the budget when workers are killed and Redis forgets."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from clock import Clock
from killable import LATER
from knocktwice import Recipient, Sms
from system import PUSH, eventually

if TYPE_CHECKING:
    from uuid import UUID

    from system import System

NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NUMBERS = [f"+1650555{n:04}" for n in range(700, 705)]
PEOPLE = [Recipient(registrations=(f"silent-{number}",), phone=number) for number in NUMBERS]


def _schedule(system: System, sms: Sms | None) -> list[UUID]:
    ids = system.client.notify_many(PEOPLE, push=PUSH, sms=sms, send_at=NOON + HOUR)
    waiting = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'scheduled'"
    eventually(lambda: system.count(waiting) == len(ids), why=system.logs)
    return ids


def test_a_worker_killed_and_a_redis_wiped_while_sends_wait_lose_none(system: System) -> None:
    clock = Clock(system.database_url)
    clock.set(NOON)
    first = system.start_worker()
    ids = _schedule(system, Sms(when="not_clicked", after=HOUR))
    first.kill()
    system.redis.flushall()
    system.start_worker()
    clock.set(NOON + HOUR)
    pushed = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'sent'"
    eventually(lambda: system.count(pushed) == len(ids), why=system.logs)
    clock.set(NOON + 2 * HOUR + timedelta(minutes=5))
    assert {system.ended(id_).state for id_ in ids} == {"texted"}
    for number in NUMBERS:
        assert len(system.sandbox.pushes(f"silent-{number}")) == len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize("point", list(LATER))
def test_a_worker_killed_as_the_time_comes_leaves_one_sms_each(system: System, point: str) -> None:
    clock = Clock(system.database_url)
    clock.set(NOON)
    quiet = system.start_worker()
    ids = _schedule(system, Sms(when="not_clicked", after=timedelta(seconds=1)))
    quiet.kill()
    clock.set(NOON + HOUR)
    doomed = system.start_worker("killable", KILL_AT=point)
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    system.start_worker()
    for id_, number in zip(ids, NUMBERS, strict=True):
        assert system.ended(id_).state == "texted", system.logs()
        assert len(system.sandbox.texts(number)) == 1
        pushed = {p.notification_id for p in system.sandbox.pushes(f"silent-{number}")}
        # The SMS may overtake a push that waits for the lease of a dead worker to end.
        assert pushed == {str(id_)} or (point == "resume_push between its claim and the push" and not pushed)


@pytest.mark.parametrize(
    "point", ["check_fallback between counting and its commit", "send_sms between its claim and the provider"]
)
def test_a_budget_is_kept_to_when_a_worker_is_killed_and_redis_wiped(system: System, point: str) -> None:
    system.settings["KNOCKTWICE_SMS_BUDGET"] = "3"
    doomed = system.start_worker("killable", KILL_AT=point)
    ids = system.client.notify_many([Recipient(phone=number) for number in NUMBERS], sms=Sms("Hello"))
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    if "claim" in point:
        system.redis.flushall()
    system.start_worker()
    ends = sorted(system.ended(id_).state for id_ in ids)
    # Parts that were counted by the one that died are not lost, and none is spent twice.
    assert ends == ["suppressed"] * 2 + ["texted"] * 3, system.logs()
    assert sum(len(system.sandbox.texts(number)) for number in NUMBERS) == 3
