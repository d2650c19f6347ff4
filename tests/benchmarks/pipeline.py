"""The full pipeline: accept, write, push, wait, decide, text. In batches, and against the textbook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import quick
from benchmarks.figures import median, spread
from benchmarks.runs import Tally, ours, the_textbook
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, COUNT = 3, quick.of(15_000, 40_000)
TEXTBOOK_ROUNDS, TEXTBOOK_COUNT = quick.of(1, 2), quick.of(300, 1_200)


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    url = here.provider.url
    theirs = list(the_textbook(here, url=url, count=TEXTBOOK_COUNT, rounds=TEXTBOOK_ROUNDS))
    database_url, tally = here.database(), Tally()
    results = list(
        ours(here, url=url, count=COUNT, rounds=ROUNDS, portion=BATCH_LIMIT, database_url=database_url, tally=tally)
    )
    rate, their_rate = median(r.per_s for r in results), median(r.per_s for r in theirs)
    cpu, their_cpu = median(r.cpu_us for r in results), median(r.cpu_us for r in theirs)
    # The median round stands for all: its parts belong together.
    middle = sorted(results, key=lambda r: r.all_us)[len(results) // 2]
    everything, stand_in = middle.all_us, middle.spent.cpu_us("provider", COUNT)
    all_theirs = median(r.all_us for r in theirs)
    figures.add_rate("in batches of 500", rate, middle.spent, COUNT, spread(r.per_s for r in results), per_s=rate)
    figures.add(
        "CPU of all processes each",
        f"{everything:,.0f} µs",
        f"{spread(r.all_us for r in results)}; {middle.spent.shares(COUNT)}",
        cpu_all_us=everything,
        standin_us=stand_in,
    )
    figures.add(
        "… against the stand-in's",
        f"{everything / stand_in:.1f} times",
        "target: 11.5",
        cpu_ratio=everything / stand_in,
    )
    figures.add("worker CPU each", f"{cpu:,.0f} µs", "target: 220 µs", cpu_us=cpu, worker_us=cpu)
    wal = median(r.written.wal_bytes for r in results) / COUNT
    figures.add("WAL each", f"{wal:,.0f} bytes", "target: 2,400", wal_bytes=wal)
    figures.add("row versions each", f"{tally.each:.2f}", "target: 7", row_versions=tally.each)
    trips = [(r.written.statements + r.written.commands) / COUNT for r in results]
    figures.add(
        "round trips each",
        f"{median(trips):.3f}",
        f"PostgreSQL {middle.written.statements / COUNT:.3f}, Valkey {middle.written.commands / COUNT:.3f}",
        round_trips=median(trips),
    )
    figures.add("ended with an SMS", f"{median(r.texted for r in results):.0%}", f"in {results[-1].total_s:.1f} s")
    if not quick.on:
        _withdrawing(here, figures)
    figures.add_rate(
        "textbook",
        their_rate,
        theirs[-1].spent,
        TEXTBOOK_COUNT,
        spread(r.per_s for r in theirs),
        textbook_per_s=their_rate,
    )
    figures.add(
        "CPU of all processes each",
        f"{all_theirs:,.0f} µs",
        theirs[-1].spent.shares(TEXTBOOK_COUNT),
        textbook_cpu_us=their_cpu,
        textbook_cpu_all_us=all_theirs,
    )
    figures.add("ended with an SMS", f"{median(r.texted for r in theirs):.0%}", f"in {theirs[-1].total_s:.1f} s")
    figures.add("against the textbook", f"{rate / their_rate:.0f} times", "in rate", ratio=rate / their_rate)
    figures.add(
        "against the textbook",
        f"{all_theirs / everything:.0f} times",
        "in CPU of all processes; target: 65",
        vs_textbook_cpu=all_theirs / everything,
    )


def _withdrawing(here: Installation, figures: Figures) -> None:
    (result,) = ours(
        here,
        url=here.provider.url,
        count=COUNT,
        rounds=1,
        portion=BATCH_LIMIT,
        database_url=here.database(),
        withdraw=True,
    )
    figures.add_rate(
        "with the pushes withdrawn",
        result.per_s,
        result.spent,
        COUNT,
        result.spent.shares(COUNT),
        withdrawing_per_s=result.per_s,
    )
