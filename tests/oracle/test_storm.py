"""A storm of a minute in the ordinary suite. Longer ones are ``make chaos SECONDS=… SEED=…``."""

from __future__ import annotations

import pytest

from oracle.storm import Outcome, Weather, rage
from oracle.violations import Violation

WEATHER = Weather(seed=11, seconds=60, faults=36, per_s=4)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the storm showed."""
    return rage(WEATHER, tmp_path_factory.mktemp("storm"))


def test_it_raged_and_everything_has_ended(outcome: Outcome) -> None:
    assert outcome.settled
    assert len(outcome.evidence.faults) == WEATHER.faults
    assert outcome.evidence.texts
    assert outcome.evidence.pushes


@pytest.mark.parametrize("violation", Violation)
def test_a_storm_shows_no(violation: Violation, outcome: Outcome) -> None:
    assert [finding for finding in outcome.findings if finding.violation is violation] == []
