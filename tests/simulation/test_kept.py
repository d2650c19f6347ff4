"""What a seed has found once is played for ever: each script in ``kept/`` showed a violation when it was put there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.notifications.pipeline.later_steps import LaterSteps
from knocktwice_worker.notifications.store import later_steps
from oracle.violations import Violation
from simulation.planted import Change, Mistake, planted
from simulation.playing import play, told
from simulation.script import Script

if TYPE_CHECKING:
    from simulation.installation import Installation

# It cuts sessions, and looks which of them waits for which.
pytestmark = pytest.mark.own_session

_KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))
_AFTER_CANCEL = frozenset({Violation.AFTER_CANCEL})
_NOBODY_WATCHES = Change(LaterSteps, "send", "min(look, unpaused_until),", "not_after,")
_NO_SECOND_LOOK = Change(LaterSteps, "send", "if look.later(-_FRESH * (1 - _OF_FRESH)).over:", "if False:")
#: What must be taken out of the product so that a script shows its violation again. The second look after a slow claim
#: saves the message from coming too late; that it is not sent after a cancellation is now also for the deadline, which
#: somebody must prolong.
_SHOWN_WITHOUT = {
    "an-sms-of-a-second-try-after-an-accepted-cancellation": Mistake((_NOBODY_WATCHES,), _AFTER_CANCEL),
    "an-sms-after-a-cancellation-during-a-slow-claim": Mistake((_NOBODY_WATCHES, _NO_SECOND_LOOK), _AFTER_CANCEL),
    "an-sms-to-a-number-that-was-given-up-during-a-slow-claim": Mistake(
        (Change(later_steps, "_HOLD", later_steps._THEIRS, "true"),), frozenset({Violation.MISMATCH})
    ),
}


def _played(name: str, here: Installation) -> list[Violation]:
    script = Script.from_json((Path(__file__).parent / "kept" / f"{name}.json").read_text())
    return [finding.violation for finding in play(here, script).findings]


@pytest.mark.parametrize("kept", _KEPT, ids=lambda path: path.stem)
def test_what_was_found_once_does_not_happen(kept: Path, here: Installation) -> None:
    played = play(here, Script.from_json(kept.read_text()))
    assert played.findings == [], told(played)
    assert played.settled
    assert played.fired == len(played.script.faults), "a fault is nowhere near the place where it was"


@pytest.mark.parametrize("name", _SHOWN_WITHOUT)
def test_it_happens_again_without_what_mends_it(name: str, here: Installation) -> None:
    mistake = _SHOWN_WITHOUT[name]
    with planted(mistake):
        assert mistake.shows & {*_played(name, here)}
