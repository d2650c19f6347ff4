"""The simulation sees: of each mistake that is planted in the product it shows what comes of it, within some seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from simulation.planted import MISTAKES, planted
from simulation.playing import play_seed

if TYPE_CHECKING:
    from simulation.installation import Installation

# It cuts sessions, and looks which of them waits for which.
pytestmark = pytest.mark.own_session


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found(name: str, here: Installation) -> None:
    mistake = MISTAKES[name]
    with planted(mistake):
        for seed in range(mistake.first, mistake.first + mistake.within):
            shown = {finding.violation for finding in play_seed(here, seed).findings}
            if shown & mistake.shows:
                print(f"seed {seed} shows {', '.join(sorted(shown))}")
                return
    raise AssertionError(f"{mistake.within} seeds show none of {', '.join(sorted(mistake.shows))}")
