"""The same run with the workers' database behind PgBouncer in transaction mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from benchmarks import quick
from benchmarks.figures import median
from benchmarks.runs import WARM_UP, ours
from knocktwice_shared.names import BATCH_LIMIT
from support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.runs import Result

ROUNDS, COUNT = quick.of(2, 4), quick.of(15_000, 40_000)
#: More than the workers' threads use at once.
SESSIONS = 40


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures. The two ways take turns, so that both see the machine in the same moods."""
    straight: list[Result] = []
    pooled: list[Result] = []
    poolers: list[float] = []
    for n in range(ROUNDS):
        straight.append(_run(here, here.database(), {}))
        database_url = here.database()
        with PgBouncer(here.home / f"pooler-{n}", database_url, sessions=SESSIONS) as pooler:
            settings = {"KNOCKTWICE_DATABASE_URL": pooler.url, "KNOCKTWICE_DATABASE_POOLED": "true"}
            pooled.append(_run(here, database_url, settings))
            spent = psutil.Process(pooler.pid).cpu_times()
            poolers.append((spent.user + spent.system) * 1e6 / (WARM_UP * BATCH_LIMIT + COUNT))
    plain = median(run.all_us for run in straight)
    own = median(poolers)
    cost = median(run.all_us for run in pooled) + own
    figures.add("straight", f"{plain:,.0f} µs", straight[-1].spent.shares(COUNT))
    remark = f"{pooled[-1].spent.shares(COUNT)}; PgBouncer {own:.0f} µs; target: 1.10 times at most"
    figures.add("by way of PgBouncer", f"{cost:,.0f} µs", f"{cost / plain:.2f} times; {remark}", ratio=cost / plain)


def _run(here: Installation, database_url: str, settings: Mapping[str, str]) -> Result:
    [result] = ours(
        here,
        url=here.provider.url,
        count=COUNT,
        rounds=1,
        portion=BATCH_LIMIT,
        database_url=database_url,
        settings=settings,
    )
    return result
