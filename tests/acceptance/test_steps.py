"""Plans of any length: each step in turn, until somebody answers."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice import Recipient, Sms, WhatsApp
from knocktwice_worker.sandbox import Answer, Rule
from support.system import PUSH, eventually, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from knocktwice_worker.reporting.story import Story
    from knocktwice_worker.sandbox.rules import TextStatus
    from support.clock import Clock
    from support.system import System

TWO_HOURS = timedelta(hours=2)
TEMPLATE = "HX" + "1" * 32

_numbers = (f"+1650555{n:04}" for n in itertools.count(600))


@pytest.fixture(scope="module")
def system(installation: System, gateway: str) -> System:
    """The installation with one worker, whose callbacks and receipts arrive."""
    assert installation.settings["KNOCKTWICE_PUBLIC_URL"] == gateway
    return installation


@pytest.fixture
def number() -> str:
    return next(_numbers)


def _whatsapp(number: str, **how: object) -> WhatsApp:
    return WhatsApp(TEMPLATE, {"1": "{{ name }}", "2": number}, **how)  # type: ignore[arg-type]


def _sms(number: str, when: str = "not_clicked") -> Sms:
    return Sms(f"Your table is ready, {number}.", when=when, after=TWO_HOURS)


def _notify(system: System, number: str, steps: Sequence[Sms | WhatsApp], *, device: str | None = None) -> UUID:
    person = Recipient(registrations=(device,) if device else (), phone=number, params={"name": "Ana"})
    (id_,) = system.client.notify_many([person], push=PUSH if device else None, steps=steps)
    return id_


def _becomes(system: System, number: str, *statuses: TextStatus, error: int | None = None) -> None:
    """Let the next WhatsApp message to a number go that way."""
    answer = Answer(statuses=statuses, error_code=error)
    system.sandbox.rule(Rule("sms", match=f"whatsapp:{number}", times=1, answer=answer))


def _reported(system: System, id_: UUID, status: str, step: int = 1) -> None:
    """Wait until the provider's word about a step is in its row."""
    query = "SELECT count(*) FROM deliveries WHERE notification_id = :id AND step = :step AND provider_status = :status"
    eventually(lambda: system.count(query, id=str(id_), step=step, status=status), why=system.logs)


def _waits_for(system: System, id_: UUID, step: int) -> Story:
    """Wait until only this step's countdown is open."""

    def look() -> Story | None:
        told = system.story(id_)
        return (
            told if told and told.steps and (told.steps[-1].step, told.steps[-1].state) == (step, "scheduled") else None
        )

    return eventually(look, why=system.logs)


def _messages(system: System, number: str) -> tuple[int, int]:
    """Return how many WhatsApp messages and SMS a number has got."""
    return len(system.sandbox.texts(f"whatsapp:{number}")), len(system.sandbox.texts(number))


# -- WhatsApp, then SMS


def test_a_whatsapp_message_that_is_read_is_followed_by_no_sms(system: System, clock: Clock, number: str) -> None:
    _becomes(system, number, "sent", "delivered", "read")
    id_ = _notify(system, number, [_whatsapp(number), _sms(number)])
    assert system.ended(id_).state == "reached"
    clock.advance(TWO_HOURS)
    assert _messages(system, number) == (1, 0)
    (message,) = system.sandbox.texts(f"whatsapp:{number}")
    assert message.body == f"{TEMPLATE} Ana {number}"


def test_one_that_cannot_be_delivered_is_followed_by_an_sms_at_once(system: System, number: str) -> None:
    _becomes(system, number, "sent", "undelivered", error=63024)
    told = system.ended(_notify(system, number, [_whatsapp(number), _sms(number)]))
    assert told.state == "texted"
    assert "undelivered" in verdicts(told)
    assert _messages(system, number) == (1, 1)


def test_one_that_is_unread_past_the_threshold_is_followed_by_an_sms(system: System, clock: Clock, number: str) -> None:
    _becomes(system, number, "sent", "delivered")
    id_ = _notify(system, number, [_whatsapp(number), _sms(number)])
    _waits_for(system, id_, 2)
    _reported(system, id_, "delivered")
    clock.advance(TWO_HOURS - timedelta(minutes=1))
    assert _waits_for(system, id_, 2).state == "active"
    clock.advance(timedelta(minutes=1))
    assert system.ended(id_).state == "texted"
    assert _messages(system, number) == (1, 1)


def test_one_that_is_refused_is_followed_by_an_sms_at_once(system: System, number: str) -> None:
    rule = Rule("sms", match=f"whatsapp:{number}", times=1, answer=Answer(error_code=63016))
    system.sandbox.rule(rule)
    told = system.ended(_notify(system, number, [_whatsapp(number), _sms(number)]))
    assert told.state == "texted"
    assert [step.state for step in told.steps] == ["failed", "sent"]
    assert _messages(system, number) == (0, 1)


def test_a_plan_may_be_nothing_but_an_sms(system: System, number: str) -> None:
    (id_,) = system.client.notify_many([Recipient(phone=number)], sms=Sms("Your code is 4711."))
    assert system.ended(id_).state == "texted"
    assert [text.body for text in system.sandbox.texts(number)] == ["Your code is 4711."]


# -- push, then WhatsApp, then SMS


@pytest.mark.parametrize("answered", ["push", "whatsapp", "sms"])
def test_each_of_three_steps_succeeds_in_turn(system: System, clock: Clock, number: str, answered: str) -> None:
    device = f"silent-{number}"
    steps: list[Sms | WhatsApp] = [_whatsapp(number, when="not_clicked", after=timedelta(minutes=5)), _sms(number)]
    read: list[TextStatus] = ["read"] if answered == "whatsapp" else []
    _becomes(system, number, "sent", "delivered", *read)
    id_ = _notify(system, number, steps, device=device)
    system.waiting(id_)
    if answered == "push":
        system.client.record_clicked(id_, registration=device)
        assert system.ended(id_).state == "reached"
    clock.advance(timedelta(minutes=5))
    if answered == "sms":
        _waits_for(system, id_, 2)
        _reported(system, id_, "delivered")
    if answered == "whatsapp":
        assert system.ended(id_).state == "reached"
    clock.advance(TWO_HOURS)
    told = system.ended(id_)
    assert told.state == ("texted" if answered == "sms" else "reached")
    assert _messages(system, number) == {"push": (0, 0), "whatsapp": (1, 0), "sms": (1, 1)}[answered]
    assert len(system.sandbox.pushes(device)) == 1


def test_a_push_clicked_late_stops_the_third_step(system: System, clock: Clock, number: str) -> None:
    device = f"silent-{number}"
    steps: list[Sms | WhatsApp] = [_whatsapp(number, when="not_delivered", after=timedelta(minutes=5)), _sms(number)]
    id_ = _notify(system, number, steps, device=device)
    system.waiting(id_)
    clock.advance(timedelta(minutes=5))
    _waits_for(system, id_, 2)
    system.client.record_clicked(id_, registration=device)
    told = system.ended(id_)
    assert (told.state, "wasted_sms" in verdicts(told)) == ("reached", True)
    assert _messages(system, number) == (1, 0)


def test_a_push_that_was_delivered_leaves_a_later_step_that_wants_a_click(
    system: System, clock: Clock, number: str
) -> None:
    device = f"delivers-{number}"
    steps: list[Sms | WhatsApp] = [_whatsapp(number, when="not_delivered", after=timedelta(minutes=5)), _sms(number)]
    id_ = _notify(system, number, steps, device=device)
    _waits_for(system, id_, 2)
    clock.advance(TWO_HOURS)
    told = system.ended(id_)
    assert [step.state for step in told.steps] == ["sent", "skipped", "sent"]
    assert _messages(system, number) == (0, 1)


def test_a_cancelled_notification_stops_between_its_steps(system: System, clock: Clock, number: str) -> None:
    id_ = _notify(system, number, [_whatsapp(number), _sms(number)])
    _waits_for(system, id_, 2)
    system.client.cancel(id_)
    # A message went out and is paid, which no cancellation hides.
    told = system.ended(id_)
    assert (told.state, [step.state for step in told.steps]) == ("texted", ["sent", "cancelled"])
    clock.advance(TWO_HOURS)
    assert _messages(system, number) == (1, 0)


# -- steps that cannot be taken


def test_a_step_that_a_limit_forbids_is_skipped_and_the_next_follows_at_once(system: System, number: str) -> None:
    first = _notify(system, number, [_whatsapp(number)])
    assert system.ended(first).state == "texted"
    told = system.ended(_notify(system, number, [_whatsapp(number), _sms(number)]))
    assert told.state == "texted"
    assert [(step.state, step.reason) for step in told.steps] == [("skipped", "duplicate_30s"), ("sent", None)]
    assert "step_failed" in verdicts(told)
    assert _messages(system, number) == (1, 1)


def test_who_has_no_number_is_passed_over_by_every_step(system: System, number: str) -> None:
    (id_,) = system.client.notify_many(["nobody"], steps=[WhatsApp(TEMPLATE), _sms(number)])
    told = system.ended(id_)
    assert told.state == "suppressed"
    assert [step.reason for step in told.steps] == ["no_phone", "no_phone"]


def test_a_stop_between_the_reservation_and_the_send_stops_the_sms(system: System, clock: Clock, number: str) -> None:
    # A provider that asks for patience leaves the SMS reserved for the time being.
    answer = Answer(error_code=20429, status=429, retry_after=600)
    system.sandbox.rule(Rule("sms", match=number, times=1, answer=answer))
    id_ = _notify(system, number, [_sms(number)], device=f"gone-{number}")
    reserved = "SELECT count(*) FROM deliveries WHERE notification_id = :id AND state = 'reserved' AND tries = 1"
    eventually(lambda: system.count(reserved, id=str(id_)), why=system.logs)
    with system.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES (:number, 'STOP')"), {"number": number})
    clock.advance(timedelta(minutes=20))
    told = system.ended(id_)
    assert (told.state, told.reason) == ("suppressed", "opted_out")
    assert _messages(system, number) == (0, 0)


# -- the push that is overtaken


def test_the_push_leaves_the_screen_when_a_later_step_goes_out(system: System, clock: Clock, number: str) -> None:
    device = f"silent-{number}"
    id_ = _notify(system, number, [_sms(number)], device=device)
    system.waiting(id_)
    (push,) = system.sandbox.pushes(device)
    assert push.withdrawn_at is None
    clock.advance(TWO_HOURS)
    assert system.ended(id_).state == "texted"
    eventually(lambda: system.sandbox.pushes(device)[0].withdrawn_at, why=system.logs)
    eventually(lambda: (told := system.story(id_)) and "withdrawn" in verdicts(told), why=system.logs)
    assert len(system.sandbox.pushes(device)) == 1
