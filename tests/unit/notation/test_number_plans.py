"""The age of the number plans."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from knocktwice_worker.diagnosis import business
from knocktwice_worker.diagnosis.check import Level
from knocktwice_worker.notation.number_plans import installed, released


@pytest.mark.parametrize(
    ("release", "day"), [("9.0.0", date(2025, 3, 6)), ("9.0.26", date(2026, 3, 5)), ("9.1.0", None), ("10.0.1", None)]
)
def test_the_number_of_a_release_tells_about_when_it_came_out(release: str, day: date | None) -> None:
    assert released(release) == day


def test_a_release_is_installed() -> None:
    assert installed()


@pytest.mark.parametrize(("days", "level"), [(0, Level.OK), (180, Level.OK), (190, Level.WARNING)])
def test_doctor_warns_of_number_plans_that_are_older_than_half_a_year(days: int, level: Level) -> None:
    day = released(installed())
    assert day is not None
    found, told = business.number_plans_on(day + timedelta(days=days))
    assert (found, "upgrade it, or set KNOCKTWICE_NUMBERS=possible" in told) == (level, level is Level.WARNING)
