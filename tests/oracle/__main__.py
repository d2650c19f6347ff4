"""``make chaos SECONDS=60 SEED=7``: a storm, what it showed, and exit code 1 if anything happened
that may never happen.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from oracle.faults import KINDS
from oracle.gathering import evidence
from oracle.judge import count, judge
from oracle.storm import Weather, rage
from oracle.violations import MEANINGS, Violation

if TYPE_CHECKING:
    from oracle.records import Evidence
    from oracle.violations import Finding

#: How many violations of a class are told.
_TOLD = 5


def main() -> int:
    """Run it from a command line."""
    given = _options()
    if given.classes:
        for violation, meaning in MEANINGS.items():
            print(f"{violation:20} {meaning}")
        return 0
    if given.judge:
        found = evidence(given.judge)
        return _report(found, judge(found), given.only)
    seed = random.randrange(10**6) if given.seed is None else given.seed
    faults = given.faults if given.faults is not None else max(1, round(given.seconds * 0.6))
    weather = Weather(
        seed, given.seconds, faults, given.per_s, given.crowd, impatient=not given.defaults, kinds=given.kinds
    )
    home = Path(tempfile.mkdtemp(prefix="knocktwice-storm-"))
    again = f"make chaos SECONDS={given.seconds:g} SEED={seed} FAULTS={faults} PER_S={given.per_s:g}"
    again += f" CROWD={given.crowd}" if given.crowd != 20 else ""
    again += f' KINDS="{",".join(given.kinds)}"' if given.kinds else ""
    print(again + (" DEFAULTS=1" if given.defaults else ""), flush=True)
    outcome = rage(weather, home)
    print(f"evidence: {home}; settled: {outcome.settled}")
    return _report(outcome.evidence, outcome.findings, given.only)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m oracle", description=__doc__)
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--seed", type=int)
    options.add_argument("--faults", type=int, help="left out: 36 a minute")
    options.add_argument("--per-s", type=float, default=8, help="scenes each second")
    options.add_argument("--crowd", type=int, default=20, help="people in one call for many, on average")
    options.add_argument(
        "--kinds", type=_kinds, default=(), help=f"only these faults, between commas: {', '.join(KINDS)}"
    )
    options.add_argument("--defaults", action="store_true", help="the settings of operators who set nothing")
    options.add_argument("--only", type=_classes, default=list(Violation), help="classes that count, between commas")
    options.add_argument("--judge", type=Path, metavar="FOLDER", help="judge the evidence of an earlier run again")
    options.add_argument("--classes", action="store_true", help="say what each class means")
    return options.parse_args()


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(word.strip() for word in text.split(","))
    if unknown := set(kinds) - set(KINDS):
        raise argparse.ArgumentTypeError(f"no kind of fault: {', '.join(sorted(unknown))}")
    return kinds


def _classes(text: str) -> list[Violation]:
    return [Violation(word.strip().upper()) for word in text.split(",")]


def _report(found: Evidence, findings: list[Finding], counting: list[Violation]) -> int:
    told = sum(call.told == "accepted" for call in found.notifies)
    print(
        f"{len(found.notifies)} calls to notify ({told} accepted), {len(found.receipts)} receipts, {len(found.pushes)} pushes "
        f"and {len(found.texts)} SMS asked for, {len(found.faults)} faults"
    )
    by_class: dict[Violation, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_class[finding.violation].append(finding)
    for violation, number in count(findings).items():
        print(f"  {violation:20} {number:5}" + ("" if violation in counting else "  (does not count)"))
        for finding in by_class[violation][:_TOLD]:
            print(f"      {finding.who}: {finding.story}")
    unknown = sum(end.state == "unknown" for end in found.ends)
    print(f"  ended as unknown     {unknown:5}")
    return int(any(finding.violation in counting for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
