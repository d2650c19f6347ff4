"""Not by chance: a worker stands still for a minute, loses its session or dies before *every* step of every kind of job.

So that nobody gets two SMS, nor one after something that was committed more than two seconds before, wherever the worker stood
between claim and record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from oracle.case import IN_BOOKS
from oracle.trouble import Door, Mood
from simulation.installation import DEFAULTS, installed
from simulation.planted import MISTAKES, planted
from simulation.playing import RULES, play, told
from simulation.script import Fault, Notice, Said, Script, Treated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers
    from oracle.records import Rules
    from simulation.installation import Installation

# It cuts sessions, and looks which of them waits for which.
pytestmark = pytest.mark.own_session

#: No job has so many steps.
_MOST = 60


@dataclass(frozen=True, slots=True)
class Way:
    """How a worker is struck, for how long, and what is said a second later."""

    kind: str
    seconds: float = 0.0
    cut: bool = False
    said: str | None = None
    at_once: bool = True

    def __str__(self) -> str:
        struck = {"stop": f"stands still for {self.seconds:g} s", "die": "dies"}[self.kind]
        struck += " without its session" if self.cut else ""
        return struck + (f", {self.said}{'' if self.at_once else ' in a queue'}" if self.said else "")


_WAYS = [
    Way("stop", 60, cut=True),
    Way("stop", 60, cut=True, said="clicked"),
    Way("stop", 60, cut=True, said="clicked", at_once=False),
    Way("stop", 60, cut=True, said="cancel"),
    Way("stop", 60, cut=True, said="STOP"),
    Way("stop", 60, said="clicked"),
    # Less than its lease: the message is still its own.
    Way("stop", 6, said="clicked"),
    Way("stop", 6, said="STOP"),
    Way("die"),
]
_ONE = Script(notices=(Notice(0.0, (("not_clicked", 5.0),)),))
_OF_A_BLAST = Script(notices=(Notice(0.0, (("not_clicked", 5.0),), blast=True),))
_CLICKED = replace(_ONE, said=(Said("clicked", 0, 3.0, at_once=False),))
#: In which story a job of each kind occurs.
_STORIES = {
    "send_push": replace(_ONE, notices=(replace(_ONE.notices[0], known=True),)),
    "resume_push": replace(_ONE, treated=(Treated(Door.PUSH, 0, Mood.BROKEN),)),
    "check_fallback": _ONE,
    "send_sms": _ONE,
    "reconcile": replace(_ONE, treated=(Treated(Door.SMS, 0, Mood.LOST),)),
    "record_events": _CLICKED,
    "cancel": replace(_ONE, said=(Said("cancel", 0, 3.0, at_once=False),)),
    "update_audience": replace(_ONE, notices=(replace(_ONE.notices[0], known=True),)),
    "tick": _ONE,
    "expand_blast": _OF_A_BLAST,
    "send_page": _OF_A_BLAST,
}


def _struck(here: Installation, op: str, way: Way, rules: Rules = RULES) -> Iterator[str]:
    """Strike before every step; yield the stories of runs in which something happened that may never happen."""
    story = _STORIES[op]
    said = (Said(way.said, 0, 1.0, during=0, at_once=way.at_once),) if way.said else ()
    for step in range(_MOST):
        script = replace(story, said=(*story.said, *said), faults=(Fault(op, 0, step, way.kind, way.seconds, way.cut),))
        played = play(here, script, rules)
        if not played.fired:
            assert step > 3, f"there is hardly a step of {op}"
            return
        texts = [text for text in played.evidence.texts if text.answer in IN_BOOKS]
        if played.findings or not played.settled or len(texts) > 1:
            yield told(played)
    raise AssertionError(f"{op} has more than {_MOST} steps")


@pytest.mark.parametrize("way", _WAYS, ids=str)
@pytest.mark.parametrize("op", _STORIES)
def test_nothing_comes_of_a_worker_that(op: str, way: Way, here: Installation) -> None:
    assert list(_struck(here, op, way)) == []


@pytest.mark.parametrize(
    ("mistake", "way"),
    [
        # Long enough for the other try, which waits for two looks at the list, whenever somebody looks for due rows.
        ("the deadline counts from the call", Way("stop", 120, cut=True)),
        ("nobody looks again when a message is held", Way("stop", 6, said="clicked")),
    ],
)
def test_that_is_seen(mistake: str, way: Way, here: Installation) -> None:
    with planted(MISTAKES[mistake]):
        assert list(_struck(here, "send_sms", way))


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_nor_of_a_sender_under_the_settings_of_who_sets_nothing(
    way: Way, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with installed(servers, tmp_path_factory.mktemp("defaults"), DEFAULTS) as here:
        assert list(_struck(here, "send_sms", way, replace(RULES, per_day=10))) == []
