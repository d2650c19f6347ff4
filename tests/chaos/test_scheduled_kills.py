"""Scheduled sends and the budget when workers are killed and Redis forgets."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Recipient, Sms
from support.clock import Clock
from support.killable_worker import LATER
from support.system import PUSH, eventually

if TYPE_CHECKING:
    from uuid import UUID

    from support.system import System

NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FOLLOWS = Sms(when="not_clicked", after=HOUR)
NUMBERS = [f"+1650555{n:04}" for n in range(700, 705)]
PEOPLE = [Recipient(registrations=(f"silent-{number}",), phone=number) for number in NUMBERS]
#: Where the provider has the push and nobody knows: it is repeated with the same tag, so the phone shows one.
REPEATED = {"resume_push after the provider took the push", "resume_push before the push's record is committed"}


def _schedule(system: System) -> list[UUID]:
    ids = system.client.notify_many(PEOPLE, push=PUSH, sms=FOLLOWS, send_at=NOON + HOUR)
    waiting = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'scheduled'"
    eventually(lambda: system.count(waiting) == len(ids), why=system.logs)
    return ids


def _all_pushed(system: System) -> None:
    pushed = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'sent'"
    eventually(lambda: system.count(pushed) == len(PEOPLE), why=system.logs)


def test_a_worker_killed_and_a_redis_wiped_while_sends_wait_lose_none(system: System) -> None:
    clock = Clock(system.database_url)
    clock.set(NOON)
    first = system.start_worker()
    ids = _schedule(system)
    first.kill()
    system.redis.flushall()
    system.start_worker()
    clock.set(NOON + HOUR)
    _all_pushed(system)
    clock.set(NOON + 2 * HOUR + timedelta(minutes=5))
    assert {system.ended(id_).state for id_ in ids} == {"texted"}
    for number in NUMBERS:
        assert len(system.sandbox.pushes(f"silent-{number}")) == len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize("point", list(LATER))
def test_a_worker_killed_as_the_time_comes_leaves_one_sms_each(system: System, point: str) -> None:
    clock = Clock(system.database_url)
    clock.set(NOON)
    quiet = system.start_worker()
    ids = _schedule(system)
    quiet.kill()
    clock.set(NOON + HOUR)
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    system.start_worker()
    _all_pushed(system)
    for number in NUMBERS:
        assert not system.sandbox.texts(number)
    clock.set(NOON + 2 * HOUR + timedelta(minutes=5))
    for id_, number in zip(ids, NUMBERS, strict=True):
        assert system.ended(id_).state == "texted", system.logs()
        assert len(system.sandbox.texts(number)) == 1
        pushes = system.sandbox.pushes(f"silent-{number}")
        assert len(pushes) == (2 if point in REPEATED else 1), system.logs()
        assert {p.notification_id for p in pushes} == {str(id_)}
        assert len({p.tag for p in pushes}) == 1


@pytest.mark.parametrize(
    "point", ["check_fallback between counting and its commit", "send_sms between its claim and the provider"]
)
def test_a_budget_is_kept_to_when_a_worker_is_killed_and_redis_wiped(system: System, point: str) -> None:
    system.settings["KNOCKTWICE_SMS_BUDGET"] = "3"
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    ids = system.client.notify_many([Recipient(phone=number) for number in NUMBERS], sms=Sms("Hello"))
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    if "claim" in point:
        system.redis.flushall()
    system.start_worker()
    ends = sorted(system.ended(id_).state for id_ in ids)
    # Parts that were counted by the one that died are not lost, and none is spent twice.
    assert ends == ["suppressed"] * 2 + ["texted"] * 3, system.logs()
    assert sum(len(system.sandbox.texts(number)) for number in NUMBERS) == 3
