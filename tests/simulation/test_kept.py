"""What a seed has found once is played for ever: each script in ``kept/`` showed a violation when it was put there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulation.playing import play, told
from simulation.script import Script

if TYPE_CHECKING:
    from simulation.installation import Installation

_KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))


@pytest.mark.parametrize("kept", _KEPT, ids=lambda path: path.stem)
def test_what_was_found_once_does_not_happen(kept: Path, here: Installation) -> None:
    played = play(here, Script.from_json(kept.read_text()))
    assert played.findings == [], told(played)
    assert played.settled
    assert played.fired == len(played.script.faults), "a fault is nowhere near the place where it was"
