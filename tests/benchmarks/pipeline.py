"""The full pipeline: accept, write, push, wait, decide, text. In batches, and against the textbook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import median, spread
from benchmarks.runs import ours, the_textbook
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, COUNT = 3, 40_000
TEXTBOOK_ROUNDS, TEXTBOOK_COUNT = 2, 1_200


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    url = here.provider.url
    theirs = list(the_textbook(here, url=url, count=TEXTBOOK_COUNT, rounds=TEXTBOOK_ROUNDS))
    results = list(ours(here, url=url, count=COUNT, rounds=ROUNDS, portion=BATCH_LIMIT, database_url=here.database()))
    database_url = here.database()
    (withdrawing,) = ours(
        here, url=url, count=COUNT, rounds=1, portion=BATCH_LIMIT, database_url=database_url, withdraw=True
    )
    rate, their_rate = median(r.per_s for r in results), median(r.per_s for r in theirs)
    cpu, their_cpu = median(r.cpu_us for r in results), median(r.cpu_us for r in theirs)
    figures.add("in batches of 500", f"{rate:,.0f}/s", spread(r.per_s for r in results), per_s=rate)
    figures.add("worker CPU each", f"{cpu:,.0f} µs", results[-1].spent.shares(COUNT), cpu_us=cpu)
    figures.add("ended with an SMS", f"{median(r.texted for r in results):.0%}", f"in {results[-1].total_s:.1f} s")
    figures.add(
        "with the pushes withdrawn",
        f"{withdrawing.per_s:,.0f}/s",
        withdrawing.spent.shares(COUNT),
        withdrawing_per_s=withdrawing.per_s,
    )
    figures.add("textbook", f"{their_rate:,.0f}/s", spread(r.per_s for r in theirs), textbook_per_s=their_rate)
    figures.add(
        "worker CPU each", f"{their_cpu:,.0f} µs", theirs[-1].spent.shares(TEXTBOOK_COUNT), textbook_cpu_us=their_cpu
    )
    figures.add("ended with an SMS", f"{median(r.texted for r in theirs):.0%}", f"in {theirs[-1].total_s:.1f} s")
    figures.add("against the textbook", f"{rate / their_rate:.0f} times", "target: 50 times", ratio=rate / their_rate)
    figures.add(
        "in worker CPU", f"{their_cpu / cpu:.0f} times", "targets: 8,600 µs to 200, 43 times", cpu_ratio=their_cpu / cpu
    )
