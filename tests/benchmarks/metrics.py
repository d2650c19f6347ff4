"""What counting for the metrics costs: the pipeline with it and without, in turns,
so that both meet the same machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import quick
from benchmarks.figures import median, spread
from benchmarks.runs import ours
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.runs import Result

ROUNDS, COUNT = quick.of(2, 5), quick.of(15_000, 30_000)


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    database_url = here.database()
    results: dict[bool, list[Result]] = {True: [], False: []}
    for turn in range(ROUNDS):
        # Who goes first alternates: a database that grows makes later runs slower.
        for counting in (True, False) if turn % 2 else (False, True):
            results[counting] += ours(
                here,
                url=here.provider.url,
                count=COUNT,
                rounds=1,
                portion=BATCH_LIMIT,
                database_url=database_url,
                settings={"KNOCKTWICE_METRICS": str(counting)},
            )
    rates = {counting: median(r.per_s for r in own) for counting, own in results.items()}
    cpu = {counting: median(r.cpu_us for r in own) for counting, own in results.items()}
    for counting, name in ((True, "with counting"), (False, "without")):
        figures.add(
            name, f"{rates[counting]:,.0f}/s", spread(r.per_s for r in results[counting]), per_s=rates[counting]
        )
    figures.add(
        "rate against without", f"{rates[True] / rates[False]:.1%}", "target: 97 %", ratio=rates[True] / rates[False]
    )
    figures.add("worker CPU against without", f"{cpu[True] / cpu[False]:.1%}", cpu_ratio=cpu[True] / cpu[False])
