"""A short storm in the ordinary suite. The long ones are ``make chaos SECONDS=… SEED=…`` and ``make storm``."""

from __future__ import annotations

import pytest

from oracle.storm import Outcome, Weather, rage
from oracle.violations import Violation

WEATHER = Weather(seed=5, seconds=8, faults=4, per_s=4)
#: What the suite holds the system to. ``make storm`` counts every class; a class is added here when its faults are mended.
HELD = [
    Violation.LOST_RECEIPT,
    Violation.OVER_LIMIT,
    Violation.UNDER_LIMIT,
    Violation.MISMATCH,
    Violation.STUCK,
    Violation.LEAK,
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the storm showed."""
    return rage(WEATHER, tmp_path_factory.mktemp("storm"))


def test_it_raged_and_everything_has_ended(outcome: Outcome) -> None:
    assert outcome.settled
    assert len(outcome.evidence.faults) == WEATHER.faults
    assert outcome.evidence.texts
    assert outcome.evidence.pushes


@pytest.mark.parametrize("violation", HELD)
def test_a_storm_shows_no(violation: Violation, outcome: Outcome) -> None:
    assert [finding for finding in outcome.findings if finding.violation is violation] == []
