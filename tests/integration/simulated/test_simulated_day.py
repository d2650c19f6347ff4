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


def test_another_seed_is_another_day() -> None:
    day = file.Day.model_validate(DAY)
    drawn = [[(call.at, call.person.id) for call in calls(day, seed, invent(day, seed))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
