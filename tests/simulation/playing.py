"""Playing scripts and seeds, judging them, and making what fails smaller."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.servers import EmbeddedServers
from oracle.judge import judge
from oracle.records import Rules
from simulation.installation import installed
from simulation.plots import plot
from simulation.run import Played, Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oracle.violations import Violation
    from simulation.installation import Installation
    from simulation.script import Script

#: What is right under the simulation's settings. Recovery is late only after a quarter of an hour: providers that had
#: trouble are asked again less and less often.
RULES = Rules(per_day=4, recovery_s=900)


def play(here: Installation, script: Script, rules: Rules = RULES) -> Played:
    """Play a script and judge it."""
    played = Run(here, script, rules).play()
    played.findings = judge(played.evidence)
    return played


def play_seed(here: Installation, seed: int) -> Played:
    """Play what a seed plots."""
    return play(here, plot(seed))


def smaller(here: Installation, script: Script, wanted: set[Violation], tries: int = 150) -> Played:
    """Return a run of the smallest script found that still shows one of these violations.

    Fewer notifications, words, faults and workers; shorter plans; each job runs to its end if that is enough.
    """
    best = play(here, script)
    known: set[str] = set()
    found = True
    while found and tries:
        found = False
        for candidate in _simpler(best.script):
            if not tries:
                break
            if (written := candidate.to_json()) in known:
                continue
            known.add(written)
            tries -= 1
            played = play(here, candidate)
            if any(finding.violation in wanted for finding in played.findings):
                best, found = played, True
                break
    return best


def _simpler(script: Script) -> Iterator[Script]:
    """Yield scripts that are simpler by one thing, the greatest simplification first."""
    for place in range(len(script.notices) - 1, -1, -1):
        if len(script.notices) > 1:
            yield _without(script, place)
    for name in ("treated", "delayed", "said"):
        parts: tuple[Any, ...] = getattr(script, name)
        for place in range(len(parts)):
            fewer: dict[str, Any] = {name: parts[:place] + parts[place + 1 :]}
            yield replace(script, **fewer)
    for place in range(len(script.faults)):
        yield _without_fault(script, place)
    if script.order:
        yield replace(script, order=0)
    if script.workers > 2:
        yield replace(script, workers=2)
    for place, notice in enumerate(script.notices):
        plain = [
            replace(notice, steps=notice.steps[:1]),
            replace(notice, known=False),
            replace(notice, device="ok"),
            replace(notice, critical=False),
            replace(notice, keyed=False),
            replace(notice, in_s=None),
            replace(notice, at=0.0),
            replace(notice, number=place),
            replace(notice, project=""),
            replace(notice, test=False),
        ]
        for one in plain:
            if one != notice:
                yield replace(script, notices=(*script.notices[:place], one, *script.notices[place + 1 :]))
    for place, fault in enumerate(script.faults):
        if fault.cut:
            yield replace(script, faults=_with(script.faults, place, replace(fault, cut=False)))
        for shorter in (3.0, 6.0, 25.0, 60.0):
            if shorter < fault.seconds:
                yield replace(script, faults=_with(script.faults, place, replace(fault, seconds=shorter)))
    for place, said in enumerate(script.said):
        if not said.at_once:
            yield replace(script, said=_with(script.said, place, replace(said, at_once=True)))
    if script.order > 50:
        for order in range(1, 6):
            yield replace(script, order=order)


def _with(parts: tuple[Any, ...], place: int, one: Any) -> tuple[Any, ...]:
    return (*parts[:place], one, *parts[place + 1 :])


def _without(script: Script, place: int) -> Script:
    """Leave out a notification, and what is said about it."""
    said = tuple(replace(one, about=one.about - (one.about > place)) for one in script.said if one.about != place)
    return replace(script, notices=script.notices[:place] + script.notices[place + 1 :], said=said)


def _without_fault(script: Script, place: int) -> Script:
    """Leave out a fault; what was said during it is said nowhere, or during the same one as before."""
    said = tuple(
        one if one.during is None else replace(one, during=one.during - (one.during > place))
        for one in script.said
        if one.during != place
    )
    return replace(script, faults=script.faults[:place] + script.faults[place + 1 :], said=said)


@contextmanager
def alone(home: Path) -> Iterator[Installation]:
    """Start servers, and set up an installation to play on."""
    with EmbeddedServers(home / "servers") as servers:
        engine = sa.create_engine(servers.database_url)
        migrations.upgrade(engine)
        engine.dispose()
        with installed(servers, home) as here:
            yield here


def told(played: Played) -> str:
    """Return the story of a run, for people."""
    lines = [*played.story, ""]
    for end in played.evidence.ends:
        steps = ", ".join(f"{step.number} {step.channel} {step.state}" for step in end.steps)
        lines.append(f"            {end.token} ended as {end.state} ({end.reason}); steps: {steps}")
    began = min((call.asked_at for call in played.evidence.notifies), default=0.0)
    lines += [
        f"{finding.at - began:8.2f} s  {finding.violation}: {finding.who}: {finding.story}"
        for finding in played.findings
    ]
    return "\n".join(lines)
