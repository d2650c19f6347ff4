"""Who may be texted, and when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Category, Push, Recipient, Sms
from support.system import eventually, verdicts

if TYPE_CHECKING:
    from uuid import UUID

    from support.clock import Clock
    from support.system import System

NIGHT = datetime.fromisoformat("2027-03-27T23:30:00+01:00")
#: After the night in which the clocks go forward.
MORNING = datetime.fromisoformat("2027-03-28T08:00:00+02:00")


@pytest.fixture(scope="module")
def system(installation: System) -> System:
    installation.settings["KNOCKTWICE_SMS_COUNTRIES"] = '["DE"]'
    installation.start_worker()
    return installation


def _notify(system: System, number: str, category: Category) -> UUID:
    (id_,) = system.client.notify_many(
        [Recipient(registrations=(f"silent-{number}",), phone=number)],
        push=Push("Sale", f"For {number}: everything must go."),
        sms=Sms(when="not_clicked", after=timedelta()),
        category=category,
    )
    return id_


def _held(system: System, id_: UUID) -> None:
    held = "SELECT count(*) FROM decisions WHERE notification_id = :id AND verdict = 'quiet_hours'"
    eventually(lambda: system.count(held, id=str(id_)), why=system.logs)


def test_marketing_waits_for_the_morning(system: System, clock: Clock) -> None:
    clock.set(NIGHT)
    number = "+4915112345001"
    id_ = _notify(system, number, Category.MARKETING)
    _held(system, id_)
    clock.set(MORNING - timedelta(seconds=30))
    told = system.story(id_)
    assert told
    assert told.state == "active"
    clock.set(MORNING)
    assert system.ended(id_).state == "texted"
    assert len(system.sandbox.texts(number)) == 1


def test_a_click_in_the_night_ends_what_waits_for_the_morning(system: System, clock: Clock) -> None:
    clock.set(NIGHT)
    number = "+4915112345002"
    id_ = _notify(system, number, Category.MARKETING)
    _held(system, id_)
    system.client.record_clicked(id_)
    assert system.ended(id_).state == "reached"
    clock.set(MORNING)
    assert not system.sandbox.texts(number)


@pytest.mark.parametrize(
    ("category", "number"), [(Category.TRANSACTIONAL, "+4915112345003"), (Category.CRITICAL, "+4915112345004")]
)
def test_what_is_no_marketing_goes_at_night(system: System, clock: Clock, category: Category, number: str) -> None:
    clock.set(NIGHT)
    assert system.ended(_notify(system, number, category)).state == "texted"


def test_a_country_that_is_not_allowed_is_not_texted(system: System) -> None:
    told = system.ended(_notify(system, "+436641234567", Category.CRITICAL))
    assert (told.state, told.reason) == ("suppressed", "country_blocked")
    assert "country_blocked" in verdicts(told)
    assert not system.sandbox.texts("+436641234567")


def test_marketing_is_texted_only_to_users_who_agreed(system: System, clock: Clock) -> None:
    clock.set(MORNING)
    for user, number in (("yes", "+4915112345011"), ("no", "+4915112345012"), ("moved", "+4915112345013")):
        system.client.bind_phone(user, number)
        system.client.set_marketing_consent(user, user != "no", source="checkout")
    known = "SELECT count(*) FROM phones WHERE number IS NOT NULL AND consent_changed_at IS NOT NULL"
    eventually(lambda: system.count(known) == 3, why=system.logs)
    # Consent was given for the number before.
    system.client.bind_phone("moved", "+4915112345014")
    eventually(lambda: system.count("SELECT count(*) FROM phones WHERE number = '+4915112345014'"), why=system.logs)
    ids = system.client.notify_many(
        ["yes", "no", "moved"],
        push=Push("Sale", "All must go."),
        sms=Sms(after=timedelta()),
        category=Category.MARKETING,
    )
    ends = [(told.state, told.reason) for told in map(system.ended, ids)]
    assert ends == [
        ("texted", "sms accepted by the provider"),
        ("suppressed", "no_consent"),
        ("suppressed", "no_consent"),
    ]
    (id_,) = system.client.notify_many(["no"], push=Push("Order", "It is on its way."), sms=Sms(after=timedelta()))
    assert system.ended(id_).state == "texted"
