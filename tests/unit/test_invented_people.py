"""Invented people: drawn from the seed alone, asleep at night by their own clock,
and half of them look within the median.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from knocktwice_shared.messages import OptOutSet, Platform
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.simulated import file
from knocktwice_worker.simulated.people import Person, invent

MINUTE = timedelta(minutes=1)


def day(**group: Any) -> file.Day:
    people = {"name": "all", "count": 2_000, "country": "DE", "zone": "Europe/Berlin", "looks_after": "6m"} | group
    return file.Day.model_validate(
        {"date": "2026-11-27", "people": [people], "traffic": [{"name": "a", "count": 1}], "rules": {"as it is": {}}}
    )


def somebody() -> Person:
    return invent(day(count=1), 1)[0]


@pytest.mark.parametrize(
    ("since", "luck", "looks"),
    [
        ("12:00", 0.5, "12:06"),
        ("12:00", 0.75, "12:12"),
        # 23:00 to 07:00 in Berlin is 22:00 to 06:00 in UTC.
        ("23:30", 0.0, "06:00"),
        ("23:30", 0.5, "06:06"),
        ("21:57", 0.5, "06:00"),
    ],
)
def test_people_look_when_they_are_awake(since: str, luck: float, looks: str) -> None:
    at = datetime.fromisoformat(f"2026-11-27T{since}+00:00")
    assert f"{somebody().looks(at, luck):%H:%M}" == looks


def test_the_same_seed_invents_the_same_people_and_shares_are_as_the_file_says() -> None:
    people = invent(day(permission=0.7, phone=0.9, opted_out=0.2, platforms={"ios": 0.25, "web": 0.75}), 7)
    assert people == invent(day(permission=0.7, phone=0.9, opted_out=0.2, platforms={"ios": 0.25, "web": 0.75}), 7)
    assert people != invent(day(permission=0.7, phone=0.9, opted_out=0.2, platforms={"ios": 0.25, "web": 0.75}), 8)
    assert Counter(one.platform for one in people)[Platform.IOS] == pytest.approx(500, rel=0.15)
    assert sum(one.shows for one in people) == pytest.approx(1_400, rel=0.1)
    numbers = [one.number for one in people if one.number]
    assert len(numbers) == len(set(numbers)) == pytest.approx(1_800, rel=0.05)
    assert {country(number) for number in numbers} == {"DE"}
    said = [change for one in people for change in one.said(datetime(2026, 11, 27, tzinfo=UTC))]
    assert sum(isinstance(change, OptOutSet) for change in said) == pytest.approx(360, rel=0.25)
