"""The same run beside a transaction that keeps its snapshot, as a long report or a forgotten session does.

PostgreSQL may remove no row version that the snapshot still sees. So every version that the run writes stays, in the
tables and in the indexes by which workers look for what is due.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import quick
from benchmarks.figures import median
from benchmarks.runs import ours
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.runs import Result

ROUNDS, COUNT = quick.of(2, 3), quick.of(20_000, 100_000)
#: How many go their way beside the snapshot; with many, it is kept for long, and one round is enough.
BESIDE = int(os.environ.get("ROWS") or COUNT)
#: After the snapshot has ended, so many at a time until they cost at most so much more than without one.
AFTER, HEALED, PATIENCE = 20_000, 1.10, 30


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures: by turns without a snapshot, with one, and once more after it has ended."""
    results: dict[str, list[Result]] = {"alone": [], "beside a held snapshot": [], "right after it": []}
    kept_s, healed_s = [], []
    for _ in range(ROUNDS if BESIDE == COUNT else 1):
        alone, beside = here.database(), here.database()
        results["alone"] += _run(here, alone, COUNT)
        with _held(beside):
            began = time.monotonic()
            results["beside a held snapshot"] += _run(here, beside, BESIDE)
            kept_s.append(time.monotonic() - began)
        plain = median(result.all_us for result in results["alone"])
        first, healed = _heal(here, beside, plain)
        results["right after it"].append(first)
        healed_s.append(healed)
    figures.add("the snapshot was kept", f"{median(kept_s):.0f} s", f"beside {BESIDE:,} notifications")
    plain = median(result.all_us for result in results["alone"])
    for name, runs in results.items():
        cost = median(result.all_us for result in runs)
        remark = f"{cost / plain:.2f} times; {runs[-1].per_s:,.0f}/s; {runs[-1].spent.shares(runs[-1].count)}"
        figures.add(name, f"{cost:,.0f} µs", remark, ratio=cost / plain)
    remark = f"until {AFTER:,} cost at most {HEALED:.2f} times as much as alone; target: 60 s"
    figures.add("healed after", f"{median(healed_s):.0f} s", remark)


def _heal(here: Installation, database_url: str, plain_us: float) -> tuple[Result, float]:
    """Return the first result after the snapshot, and the seconds until all is as without one."""
    began, first = time.monotonic(), None
    for result in _run(here, database_url, AFTER, rounds=PATIENCE):
        first = first or result
        if result.all_us <= HEALED * plain_us:
            return first, time.monotonic() - began - result.total_s
    raise AssertionError(f"{PATIENCE * AFTER:,} notifications later it is not as before")


def _run(here: Installation, database_url: str, count: int, rounds: int = 1) -> Iterator[Result]:
    return ours(here, url=here.provider.url, count=count, rounds=rounds, portion=BATCH_LIMIT, database_url=database_url)


@contextmanager
def _held(database_url: str) -> Iterator[None]:
    engine = sa.create_engine(database_url, isolation_level="REPEATABLE READ", poolclass=sa.NullPool)
    with engine.connect() as conn:
        conn.exec_driver_sql("SELECT count(*) FROM notifications")
        yield
