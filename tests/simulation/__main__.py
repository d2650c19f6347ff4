"""``make simulate RUNS=2000 SEED=1``: so many simulated runs; exit code 1 if anything happened that may never happen.

A seed that fails is shown with its story, made smaller, and written to a file that ``--play FILE`` plays again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from simulation.playing import alone, play, play_seed, smaller, told
from simulation.script import Script

if TYPE_CHECKING:
    from simulation.installation import Installation

#: How many failing seeds are made smaller and shown.
_SHOWN = 5


def main() -> int:
    """Run it from a command line."""
    options = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    options.add_argument("--runs", type=int, default=2_000)
    options.add_argument("--seed", type=int, default=1, help="of the first run; each further run has the next")
    options.add_argument("--jobs", type=int, default=1, help="processes side by side")
    options.add_argument("--play", type=Path, metavar="FILE", help="play a script that was written before")
    options.add_argument("--only", type=int, metavar="SEED", help="play one seed and tell its story")
    given = options.parse_args()
    if given.jobs > 1:
        return _side_by_side(given.runs, given.seed, given.jobs)
    with tempfile.TemporaryDirectory(prefix="knocktwice-simulation-") as home, alone(Path(home)) as here:
        if given.play:
            return _one(here, Script.from_json(given.play.read_text()))
        if given.only is not None:
            played = play_seed(here, given.only)
            print(told(played))
            return int(bool(played.findings))
        return _many(here, given.runs, given.seed)


def _one(here: Installation, script: Script) -> int:
    played = play(here, script)
    print(told(played))
    return int(bool(played.findings))


def _many(here: Installation, runs: int, first: int) -> int:
    began, steps, faults, unsettled = time.monotonic(), 0, 0, 0
    notified, failed, classes = 0, [], Counter[str]()
    for seed in range(first, first + runs):
        played = play_seed(here, seed)
        steps += played.steps
        faults += len(played.evidence.faults)
        notified += len(played.evidence.ends)
        unsettled += not played.settled
        if played.findings:
            failed.append(seed)
            classes.update({str(finding.violation) for finding in played.findings})
            if len(failed) <= _SHOWN:
                _show(here, seed)
    seconds = time.monotonic() - began
    print(
        f"seeds {first} to {first + runs - 1}: {runs} runs, {notified} notifications, {faults} faults, {steps} steps, "
        f"{seconds:.0f} s, {runs / seconds * 60:.0f} runs a minute; {len(failed)} failed, {unsettled} without an end"
    )
    for name, count in classes.most_common():
        print(f"  {name:20} {count:5}")
    if failed:
        print(f"  seeds: {', '.join(map(str, failed))}")
    return int(bool(failed or unsettled))


def _show(here: Installation, seed: int) -> None:
    played = play_seed(here, seed)
    wanted = {finding.violation for finding in played.findings}
    small = smaller(here, played.script, wanted) if wanted else played
    kept = Path(tempfile.gettempdir()) / f"simulation-{seed}.json"
    kept.write_text(small.script.to_json())
    print(f"seed {seed} fails; made smaller ({played.script.size} things, now {small.script.size}), kept as {kept}:")
    print(told(small), flush=True)


def _side_by_side(runs: int, first: int, jobs: int) -> int:
    """Share the runs among processes, each with servers of its own."""
    share = -(-runs // jobs)
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    parts = []
    for n in range(jobs):
        asked = ["--runs", str(share), "--seed", str(first + n * share)]
        parts.append(subprocess.Popen([sys.executable, "-m", "simulation", *asked]))
        if processors:
            # Its threads and servers take turns: waking one on another processor costs more than most steps.
            os.sched_setaffinity(parts[-1].pid, {processors[n % len(processors)]})
    return max(part.wait() for part in parts)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # A set's order is part of what a seed decides.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])  # noqa: S606 - this program
    sys.exit(main())
