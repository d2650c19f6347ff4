"""Simulated runs by seed: whatever stops, dies and gets lost, nothing happens that may never happen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from simulation.playing import play, play_seed, smaller, told
from simulation.plots import OF_ALL_KINDS, OF_ANSWERS, OF_BLASTS, OF_LIMITS, OF_PEOPLE, plot
from simulation.script import Notice, Script

if TYPE_CHECKING:
    from simulation.installation import Installation

# It cuts sessions, and looks which of them waits for which.
pytestmark = pytest.mark.own_session

#: So many runs in all, in parts; the last five are about answers of all kinds; about projects, tests, messages that fail
#: later, and pauses; about blasts, and SMS with media; about people whose number or device changes; and about limits.
RUNS, PART = 2_000, 250


@pytest.mark.parametrize(
    "first", [*range(1, RUNS - 5 * PART + 1, PART), OF_ANSWERS, OF_ALL_KINDS, OF_BLASTS, OF_PEOPLE, OF_LIMITS]
)
def test_no_seed_shows_anything(first: int, here: Installation) -> None:
    began, steps, faults = time.monotonic(), 0, 0
    for seed in range(first, first + PART):
        played = play_seed(here, seed)
        steps += played.steps
        faults += len(played.evidence.faults)
        if played.findings:
            small = smaller(here, played.script, {finding.violation for finding in played.findings})
            pytest.fail(f"seed {seed}:\n{told(small)}\n\n{small.script.to_json()}")
        assert played.settled, f"seed {seed} has no end:\n{told(played)}"
    seconds = time.monotonic() - began
    print(f"{PART} runs, {steps} steps, {faults} faults: {PART / seconds * 60:.0f} runs a minute")


def test_a_seed_makes_the_same_run_again(here: Installation) -> None:
    seed = 18
    # The first run of an installation has steps of its own: it connects, and what is read once is read.
    play_seed(here, seed)
    first, second = play_seed(here, seed), play_seed(here, seed)
    assert (first.steps, len(first.story), first.fired) == (second.steps, len(second.story), second.fired)
    assert first.fired


def test_a_script_can_be_written_down(here: Installation) -> None:
    script = plot(7)
    assert Script.from_json(script.to_json()) == script
    assert play(here, script).script == script


def test_a_run_takes_none_of_the_time_that_passes_in_it(here: Installation) -> None:
    later = Script(notices=(Notice(0.0, (("not_clicked", 3_000.0),)),))
    played = play(here, later)
    (text,), (push,) = played.evidence.texts, [push for push in played.evidence.pushes if not push.silent]
    assert text.at - push.at >= 3_000
