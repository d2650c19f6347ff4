"""Every trigger meets every receipt: in time, late, never, and from the user's other device."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Push, Recipient, Sms, When
from support.system import eventually, verdicts

if TYPE_CHECKING:
    from uuid import UUID

    from support.clock import Clock
    from support.system import System

DELAY = timedelta(minutes=10)

_numbers = (f"+1650555{n:04}" for n in itertools.count(100))

#: How a notification ends that got this receipt before its delay was over.
ENDINGS = {
    (When.NOT_DELIVERED, "delivered"): "reached",
    (When.NOT_DELIVERED, "clicked"): "reached",
    (When.NOT_CLICKED, "delivered"): "texted",
    (When.NOT_CLICKED, "clicked"): "reached",
    # That a device could show the push is all this one asks for, receipts or not.
    (When.NOTIFICATIONS_DISABLED, "delivered"): "pushed",
    (When.NOTIFICATIONS_DISABLED, "clicked"): "reached",
}

#: The triggers of steps that stand in for a push that did not arrive.
FALLBACKS = [When.NOT_DELIVERED, When.NOT_CLICKED, When.NOTIFICATIONS_DISABLED]


def _notify(system: System, number: str, when: When, *registrations: str) -> UUID:
    (id_,) = system.client.notify_many(
        [Recipient(registrations=registrations, phone=number)],
        push=Push("Your table is ready", f"We keep it for {number}."),
        sms=Sms(when=when, after=DELAY),
    )
    return id_


def _report(system: System, kind: str, id_: UUID, registration: str) -> None:
    report = system.client.record_clicked if kind == "clicked" else system.client.record_delivered
    report(id_, registration=registration)
    recorded = "SELECT count(*) FROM events WHERE notification_id = :id AND kind = :kind"
    eventually(lambda: system.count(recorded, id=str(id_), kind=kind), why=system.logs)


@pytest.mark.parametrize("device", ["the first device", "the second device"])
@pytest.mark.parametrize(("when", "kind"), list(ENDINGS))
def test_a_receipt_in_time_from_any_device(system: System, clock: Clock, when: When, kind: str, device: str) -> None:
    number = next(_numbers)
    devices = [f"silent-{number}-1", f"silent-{number}-2"]
    id_ = _notify(system, number, when, *devices)
    system.waiting(id_)
    _report(system, kind, id_, devices["second" in device])
    clock.advance(DELAY)
    told = system.ended(id_)
    assert told.state == ENDINGS[when, kind]
    assert len(system.sandbox.texts(number)) == (told.state == "texted")
    assert [len(system.sandbox.pushes(d)) for d in devices] == [1, 1]


@pytest.mark.parametrize("when", [When.NOT_DELIVERED, When.NOT_CLICKED])
def test_silence_is_followed_by_one_sms(system: System, clock: Clock, when: When) -> None:
    number = next(_numbers)
    id_ = _notify(system, number, when, f"silent-{number}")
    system.waiting(id_)
    clock.advance(DELAY - timedelta(minutes=1))
    assert system.story(id_).state == "active"  # type: ignore[union-attr]
    clock.advance(timedelta(minutes=1))
    told = system.ended(id_)
    assert told.state == "texted"
    (text,) = system.sandbox.texts(number)
    assert text.body == f"We keep it for {number}."
    assert str(when) in verdicts(told)


def test_silence_is_enough_where_only_notifications_off_would_matter(system: System, clock: Clock) -> None:
    number = next(_numbers)
    id_ = _notify(system, number, When.NOTIFICATIONS_DISABLED, f"silent-{number}")
    system.waiting(id_)
    clock.advance(DELAY)
    assert system.ended(id_).state == "pushed"
    assert not system.sandbox.texts(number)


@pytest.mark.parametrize("kind", ["delivered", "clicked"])
@pytest.mark.parametrize("when", [When.NOT_DELIVERED, When.NOT_CLICKED])
def test_a_receipt_after_the_sms_changes_nothing_but_is_noted_where_it_would_have_mattered(
    system: System, clock: Clock, when: When, kind: str
) -> None:
    number = next(_numbers)
    device = f"silent-{number}"
    id_ = _notify(system, number, when, device)
    system.waiting(id_)
    clock.advance(DELAY)
    assert system.ended(id_).state == "texted"
    _report(system, kind, id_, device)
    wasted = (when, kind) != (When.NOT_CLICKED, "delivered")
    # A receipt is committed first and settled afterwards.
    eventually(lambda: verdicts(system.ended(id_)).count("wasted_sms") == wasted, why=system.logs)
    assert system.ended(id_).state == "texted"
    assert len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize("when", FALLBACKS)
def test_notifications_off_on_every_device_is_followed_by_an_sms_at_once_unless_the_delay_is_for_that(
    system: System, clock: Clock, when: When
) -> None:
    number = next(_numbers)
    user = f"off-{when}"
    system.client.register_device(user, f"silent-{user}", notifications_enabled=False)
    system.client.bind_phone(user, number)
    known = "SELECT count(*) FROM devices d JOIN phones USING (user_id) WHERE user_id = :user"
    eventually(lambda: system.count(known, user=user), why=system.logs)
    id_ = system.client.notify(user=user, push=Push("a", f"for {number}"), sms=Sms(when=when, after=DELAY))
    if when is When.NOTIFICATIONS_DISABLED:
        system.waiting(id_)
        assert not system.sandbox.texts(number)
        clock.advance(DELAY)
    assert system.ended(id_).state == "texted"
    assert not system.sandbox.pushes(f"silent-{user}")
    assert len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize("when", FALLBACKS)
def test_a_push_that_cannot_go_out_is_followed_by_an_sms_at_once(system: System, when: When) -> None:
    number = next(_numbers)
    id_ = _notify(system, number, when, f"gone-{number}")
    told = system.ended(id_)
    assert told.state == "texted"
    assert "push_failed" in verdicts(told)
    assert len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize(
    ("when", "kind", "state", "texts"),
    [
        (When.DELIVERED, "delivered", "texted", 1),
        (When.DELIVERED, "clicked", "reached", 1),
        (When.CLICKED, "clicked", "reached", 1),
        (When.CLICKED, "delivered", "pushed", 0),
    ],
)
def test_a_step_follows_the_success_that_it_asks_for(
    system: System, clock: Clock, when: When, kind: str, state: str, texts: int
) -> None:
    number = next(_numbers)
    device = f"silent-{number}"
    id_ = _notify(system, number, when, device)
    system.waiting(id_)
    _report(system, kind, id_, device)
    assert not system.sandbox.texts(number)
    clock.advance(DELAY)
    assert system.ended(id_).state == state
    assert len(system.sandbox.texts(number)) == texts


@pytest.mark.parametrize("when", [When.DELIVERED, When.CLICKED])
def test_nothing_follows_a_push_that_cannot_go_out(system: System, when: When) -> None:
    number = next(_numbers)
    told = system.ended(_notify(system, number, when, f"gone-{number}"))
    assert told.state == "failed"
    assert "nothing_to_follow" in verdicts(told)
    assert not system.sandbox.texts(number)


def test_a_receipt_that_overtakes_its_notification_still_counts(system: System, clock: Clock) -> None:
    number = next(_numbers)
    device = f"clicks-{number}"
    id_ = _notify(system, number, When.NOT_CLICKED, device)
    assert system.ended(id_).state == "reached"
    clock.advance(DELAY)
    assert not system.sandbox.texts(number)


def test_without_an_sms_in_the_plan_nothing_is_texted(system: System, clock: Clock) -> None:
    number = next(_numbers)
    (id_,) = system.client.notify_many(
        [Recipient(registrations=(f"silent-{number}",), phone=number)], push=Push("a", f"only a push for {number}")
    )
    told = system.ended(id_)
    assert told.state == "pushed"
    clock.advance(timedelta(days=30))
    assert not system.sandbox.texts(number)


def test_a_cancelled_notification_sends_no_sms(system: System, clock: Clock) -> None:
    number = next(_numbers)
    id_ = _notify(system, number, When.NOT_DELIVERED, f"silent-{number}")
    system.waiting(id_)
    system.client.cancel(id_)
    assert system.ended(id_).state == "cancelled"
    clock.advance(DELAY)
    assert not system.sandbox.texts(number)
