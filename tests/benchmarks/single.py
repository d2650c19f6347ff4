"""The same by single ``notify()`` calls, with providers that take 80 ms for a push and 150 ms for an SMS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import median, spread
from benchmarks.runs import ours, the_textbook

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, COUNT = 3, 6_000
TEXTBOOK_COUNT = 150


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    url = here.provider.slow_url
    (theirs,) = the_textbook(here, url=url, count=TEXTBOOK_COUNT, rounds=1)
    results = list(ours(here, url=url, count=COUNT, rounds=ROUNDS, portion=1, database_url=here.database()))
    rate, cpu = median(r.per_s for r in results), median(r.cpu_us for r in results)
    figures.add("one notify() each", f"{rate:,.0f}/s", spread(r.per_s for r in results), per_s=rate)
    figures.add("worker CPU each", f"{cpu:,.0f} µs", results[-1].spent.shares(COUNT), cpu_us=cpu)
    figures.add("ended with an SMS", f"{median(r.texted for r in results):.0%}", f"in {results[-1].total_s:.1f} s")
    figures.add("textbook", f"{theirs.per_s:,.1f}/s", f"in {theirs.total_s:.1f} s", textbook_per_s=theirs.per_s)
    figures.add("worker CPU each", f"{theirs.cpu_us:,.0f} µs", theirs.spent.shares(TEXTBOOK_COUNT))
    figures.add(
        "against the textbook", f"{rate / theirs.per_s:.0f} times", "target: 50 times", ratio=rate / theirs.per_s
    )
