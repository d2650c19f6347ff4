"""``make mutants``: break the program in small ways, and name those that no test notices."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from mutants import mutant as lists
from mutants import own_choice
from mutants.trial import Scratch, Verdict

_ROOT = Path(__file__).parents[2]
_KEPT = Path(__file__).with_name("kept.toml")


def main() -> int:
    """Try the mutants that the command line asks for; 1 if one survived or could not be tried."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose file, promise or tests hold this text")
    parser.add_argument("--seed", type=int, help="instead of the kept list: the tool's own choice, by this seed")
    parser.add_argument("--count", type=int, default=20, help="how many of its own choice")
    parser.add_argument("--limit", type=float, default=300, help="seconds that the tests of one may take")
    options = parser.parse_args()
    listed = [one for one in lists.read(_KEPT) if options.only in " ".join((one.file, one.promise, *one.tests))]
    wanted = listed if options.seed is None else own_choice.choose(_ROOT, listed, options.seed, options.count)
    with tempfile.TemporaryDirectory(prefix="knocktwice-mutants-") as folder:
        return _try_all(wanted, Scratch(_ROOT, Path(folder) / "tree"), options.limit)


def _try_all(wanted: list[lists.Mutant], scratch: Scratch, limit_s: float) -> int:
    verdicts: Counter[str] = Counter()
    for one in wanted:
        if one.equivalent:
            verdict = "equivalent"
        else:
            try:
                verdict = scratch.judge(one, limit_s).value
            except ValueError as error:
                verdict = Verdict.BROKEN.value
                print(error)
        verdicts[verdict] += 1
        print(f"{verdict:10} {one.file.rpartition('knocktwice_worker/')[2]}: {one.promise}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return int(bool(verdicts[Verdict.SURVIVED] or verdicts[Verdict.BROKEN]))


if __name__ == "__main__":
    sys.exit(main())
