"""What became of mutants: kept in a file from one run to the next, and told in a table."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from mutants.trial import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mutants.mutant import Mutant
    from mutants.trial import Scratch

_KILLED = (Verdict.KILLED, Verdict.TIMEOUT)


class Report:
    """Verdicts, in the order in which they came.

    Args:
        path: a file that keeps them, so that a run can go on where another one ended; ``None``: they are not kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Verdict] = {}
        #: Id of a mutant → the test that went red, as long as it is not known to be green without it.
        self._red: dict[str, str] = {}
        self._green: set[str] = set()
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                self._take(json.loads(line))

    def __getitem__(self, mutant: Mutant) -> Verdict:
        return self._known[mutant.id]

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.id in self._known

    def note(self, mutant: Mutant, verdict: Verdict, red: str | None = None) -> None:
        """Keep a verdict, and which test went red."""
        self._keep({"id": mutant.id, "verdict": verdict, "red": red, "what": f"{mutant.place}: {mutant.promise}"})

    def confirm(self, scratch: Scratch, limit_s: float) -> None:
        """Run the tests that went red without any mutant. One that is red all the same has killed nothing."""
        asked = sorted(set(self._red.values()) - self._green)
        if asked and scratch.are_green(asked, limit_s):
            self._keep({"green": asked})
            return
        for test in asked:
            if scratch.are_green([test], limit_s):
                self._keep({"green": [test]})
            else:
                for id_ in [id_ for id_, red in self._red.items() if red == test]:
                    self._keep({"id": id_, "verdict": Verdict.BROKEN, "red": None, "what": f"{test} is red anyway"})

    def _keep(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, Any]) -> None:
        if "green" in entry:
            self._green |= set(entry["green"])
            return
        self._known[entry["id"]] = Verdict(entry["verdict"])
        self._red.pop(entry["id"], None)
        if entry["red"]:
            self._red[entry["id"]] = entry["red"]

    def bad(self, mutants: Iterable[Mutant]) -> list[Mutant]:
        """Return those that survived or could not be tried."""
        return [one for one in mutants if one in self and self[one] in (Verdict.SURVIVED, Verdict.BROKEN)]

    def table(self, mutants: Iterable[Mutant]) -> str:
        """Return the figures, room by room, and the names of those that survived or could not be tried."""
        tried = [one for one in mutants if one in self]
        by_room: dict[str, Counter[Verdict]] = {}
        for one in tried:
            by_room.setdefault(one.room, Counter())[self[one]] += 1
        width = max(map(len, [*by_room, "all"]))
        lines = [f"{'room':{width}}  total  killed  equivalent  survived  broken"]
        lines += [f"{room:{width}}{_figures(found)}" for room, found in sorted(by_room.items())]
        everything: Counter[Verdict] = sum(by_room.values(), Counter())
        lines.append(f"{'all':{width}}{_figures(everything)}")
        judged = everything.total() - everything[Verdict.EQUIVALENT]
        share = sum(everything[verdict] for verdict in _KILLED) / judged if judged else 1
        lines.append(f"{share:.1%} of {judged} that are not equivalent are killed")
        lines += [f"{self[one]}  {one.place}: {one.promise}" for one in self.bad(tried)]
        return "\n".join(lines)


def _figures(found: Counter[Verdict]) -> str:
    killed = sum(found[verdict] for verdict in _KILLED)
    counts = (found.total(), killed, found[Verdict.EQUIVALENT], found[Verdict.SURVIVED], found[Verdict.BROKEN])
    return "".join(f"{count:>{width}}" for count, width in zip(counts, (7, 8, 12, 10, 8), strict=True))
