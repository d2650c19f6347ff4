"""What became of mutants: kept in a file from one run to the next, and told in a table."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from mutants.trial import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mutants.mutant import Mutant

_KILLED = (Verdict.KILLED, Verdict.TIMEOUT)


class Report:
    """Verdicts, in the order in which they came.

    Args:
        path: a file that keeps them, so that a run can go on where another one ended; ``None``: they are not kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Verdict] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["id"]] = Verdict(entry["verdict"])

    def __getitem__(self, mutant: Mutant) -> Verdict:
        return self._known[mutant.id]

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.id in self._known

    def note(self, mutant: Mutant, verdict: Verdict) -> None:
        """Keep a verdict."""
        self._known[mutant.id] = verdict
        if self._path is not None:
            entry = {"id": mutant.id, "verdict": verdict, "place": mutant.place, "promise": mutant.promise}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

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
