"""A simulated day: the same seed repeats it, the figures are those of the rows, and rules do to it what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_worker.simulated import file
from knocktwice_worker.simulated.people import invent
from knocktwice_worker.simulated.run import scratch
from knocktwice_worker.simulated.traffic import calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.simulated.outcome import Outcome
    from knocktwice_worker.simulated.run import Scratch

DAY: dict[str, Any] = {
    "date": "2026-11-27",
    "people": [
        {"name": "here", "count": 40, "country": "DE", "zone": "Europe/Berlin", "reports": {"android": 1, "ios": 1}},
        {"name": "abroad", "count": 20, "country": "US", "zone": "America/New_York", "landline": 0.3},
    ],
    "traffic": [
        {"name": "order", "count": 60, "hours": "10:00-10:30", "skew": 3, "after": "10m"},
        {"name": "sale", "category": "marketing", "at": "20:30", "same_text": True, "after": "45m"},
    ],
    "outages": [
        {"what": "receipts", "begins": "10:10", "lasts": "10m"},
        {"what": "sms", "begins": "10:20", "lasts": "5m"},
    ],
    "prices": {"DE": 0.1, "*": 0.01},
    "step": "5m",
    "rules": {
        "as it is": {},
        "again": {},
        "patient": {"after": "2h", "only": ["order"]},
        "two a day": {"settings": {"sms_per_day": 2}},
        "no night": {"settings": {"quiet_hours": ""}},
        "watched": {"settings": {"trial": {"sms_per_day": 2}}},
    },
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    with scratch(tmp_path_factory.mktemp("day") / "home", file.Day.model_validate(DAY), 7) as there:
        yield there


@pytest.fixture(scope="module")
def found(there: Scratch) -> dict[str, Outcome]:
    """The outcome of the day under each set of rules."""
    return {name: there.run(name, {}) for name in DAY["rules"]}


def test_the_same_seed_repeats_the_day(found: dict[str, Outcome]) -> None:
    assert found["as it is"] == found["again"]
    assert found["as it is"].sms > 20


def test_a_longer_delay_saves_sms_and_more_people_see_the_push_first(found: dict[str, Outcome]) -> None:
    plain, patient = found["as it is"], found["patient"]
    assert patient.sms < plain.sms
    assert patient.by_push > plain.by_push
    assert patient.cost is not None
    assert plain.cost is not None
    assert patient.cost < plain.cost
    # The push lives as long as the SMS waits, so phones that are away get it later.
    assert patient.clicked >= plain.clicked


def test_limits_and_quiet_hours_do_what_they_say(found: dict[str, Outcome]) -> None:
    plain = found["as it is"]
    assert found["two a day"].suppressed.get("capped_daily", 0) > plain.suppressed.get("capped_daily", 0)
    assert found["two a day"].sms < plain.sms
    # In the night of Berlin the sale's SMS wait; all arrive in the end, but later.
    assert found["no night"].within["2h"] >= plain.within["2h"]
    # A trial lets everything go.
    assert found["watched"].sms == plain.sms


def test_every_notification_ends_and_the_world_agrees_with_the_rows(found: dict[str, Outcome]) -> None:
    for name, one in found.items():
        assert one.notifications == sum(one.states.values()) == 120, name
        assert "active" not in one.states, name
        assert sum(one.suppressed.values()) == one.states.get("suppressed", 0), name
        assert one.parts == one.sms, name
        assert one.reached <= one.notifications, name


#: Nobody sees a push. Half have WhatsApp, and somebody pumps codes.
PLANS: dict[str, Any] = {
    "date": "2026-11-27",
    "people": [
        {
            "name": "all",
            "count": 60,
            "country": "DE",
            "permission": 0,
            "tells_permission": 0,
            "app_removed": 0,
            "phone": 1,
        }
        | {"opted_out": 0, "landline": 0, "whatsapp": 0.5, "tells_reading": 1, "offline": 0}
    ],
    "traffic": [
        {"name": "news", "at": "10:00"}
        | {"plan": [{"channel": "whatsapp", "after": "1m"}, {"when": "not_delivered", "after": "10m"}]},
        {
            "name": "code",
            "category": "critical",
            "count": 1,
            "hours": "13:00-13:01",
            "when": "not_delivered",
            "after": "30s",
        },
    ],
    "attacks": [{"traffic": "code", "country": "EE", "begins": "13:00", "lasts": "20m", "count": 100}],
    "prices": {"DE": 0.1, "*": 0.01},
    "whatsapp_prices": {"DE": 1},
    "rules": {
        "plan": {},
        "sms": {"plan": [{"after": "1m"}], "only": ["news"]},
        "slowly": {"plan": [{"after": "1m"}], "only": ["news"], "settings": {"sms_parts_per_s": 0.05}},
        "pushes slowly": {"settings": {"push_per_s": 0.5}},
        "held": {"settings": {"pumping": "hold", "pumping_sample": 20}},
    },
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    with scratch(tmp_path_factory.mktemp("plans") / "home", file.Day.model_validate(PLANS), 7) as there:
        yield {name: there.run(name, {}) for name in PLANS["rules"]}


def test_whatsapp_goes_first_and_who_has_none_is_texted(plans: dict[str, Outcome]) -> None:
    plan, sms = plans["plan"], plans["sms"]
    code = 1
    assert plan.whatsapp == 60
    assert 15 < plan.sms - plan.pumped - code < 45
    assert (sms.whatsapp, sms.sms) == (0, 60 + sms.pumped + code)
    assert plan.cost == pytest.approx(60 + 0.1 * (plan.sms - plan.pumped) + 0.01 * plan.pumped)
    assert plan.had_seen == 0
    assert plan.reached == sms.reached == 60 + code


def test_a_pace_shows_its_queue_and_how_late_it_makes_messages(plans: dict[str, Outcome]) -> None:
    fast, slow, pushes = plans["sms"], plans["slowly"], plans["pushes slowly"]
    assert (fast.waited, fast.longest_wait_s, fast.pushes_waited) == (0, 0, 0)
    # The news need 20 minutes at that pace, of which one may pass between two looks.
    assert 18 * 60 <= slow.longest_wait_s <= 20 * 60
    assert 50 < slow.waited <= slow.sms
    assert slow.most_waiting >= 55
    assert slow.sms - slow.pumped == fast.sms - fast.pumped
    assert 60 <= pushes.push_longest_wait_s <= 120
    assert 25 <= pushes.pushes_waited <= 60


def test_pumping_is_found_and_held(plans: dict[str, Outcome]) -> None:
    # What is only watched goes.
    assert plans["plan"].pumped == 100
    assert plans["held"].brakes >= 1
    assert 20 <= plans["held"].pumped < 80
    assert plans["held"].sms - plans["held"].pumped == plans["plan"].sms - plans["plan"].pumped


def test_another_seed_is_another_day() -> None:
    day = file.Day.model_validate(DAY)
    drawn = [[(call.at, call.person.id) for call in calls(day, seed, invent(day, seed))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
