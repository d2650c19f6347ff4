"""The same by single ``notify()`` calls, with providers that take 80 ms for a push and 150 ms for an SMS.

BullMQ, procrastinate and the textbook do the same job on the same servers in the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import quick
from benchmarks.figures import median, spread
from benchmarks.peers import Program
from benchmarks.provider import Unavailable
from benchmarks.runs import Result, ours, the_peer, the_textbook

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, COUNT = quick.of(1, 3), quick.of(4_000, 6_000)
TEXTBOOK_COUNT = 150
#: Library → notifications in its run, and before it for warmth.
PEERS = {
    "bullmq": (quick.of(2_500, 6_000), 500),
    "procrastinate": (quick.of(500, 2_000), 100),
}


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    url = here.provider.slow_url
    results = list(ours(here, url=url, count=COUNT, rounds=ROUNDS, portion=1, database_url=here.database()))
    rate, cpu = median(r.per_s for r in results), median(r.cpu_us for r in results)
    middle = sorted(results, key=lambda r: r.all_us)[len(results) // 2]
    figures.add_rate("one notify() each", rate, middle.spent, COUNT, spread(r.per_s for r in results), per_s=rate)
    figures.add("worker CPU each", f"{cpu:,.0f} µs", "", cpu_us=cpu)
    figures.add(
        "CPU of all processes each",
        f"{middle.all_us:,.0f} µs",
        f"{middle.spent.shares(COUNT)}; target: 1,500 µs",
        cpu_all_us=middle.all_us,
        application_us=middle.spent.cpu_us("application", COUNT),
    )
    trips = middle.written
    figures.add(
        "round trips each",
        f"{(trips.statements + trips.commands) / COUNT:.2f}",
        f"PostgreSQL {trips.statements / COUNT:.2f}, Valkey {trips.commands / COUNT:.2f}",
        round_trips=(trips.statements + trips.commands) / COUNT,
    )
    figures.add("ended with an SMS", f"{median(r.texted for r in results):.0%}", f"in {results[-1].total_s:.1f} s")
    for name, (count, warm_up) in PEERS.items():
        try:
            theirs = the_peer(here, Program(name), url=url, count=count, warm_up=warm_up)
        except Unavailable as error:
            figures.add(name, "-", str(error))
            continue
        _compare(figures, name, theirs, middle, rate)
    if not quick.on:
        (theirs,) = the_textbook(here, url=url, count=TEXTBOOK_COUNT, rounds=1)
        _compare(figures, "textbook", theirs, middle, rate)


def _compare(figures: Figures, name: str, theirs: Result, own: Result, rate: float) -> None:
    figures.add_rate(
        name, theirs.per_s, theirs.spent, theirs.count, f"in {theirs.total_s:.1f} s", **{f"{name}_per_s": theirs.per_s}
    )
    figures.add(
        "CPU of all processes each",
        f"{theirs.all_us:,.0f} µs",
        theirs.spent.shares(theirs.count),
        **{f"{name}_cpu_all_us": theirs.all_us},
    )
    figures.add("ended with an SMS", f"{theirs.texted:.0%}", "")
    figures.add(
        f"against {name}",
        f"{theirs.all_us / own.all_us:.2f} times",
        f"in CPU of all processes; in rate {rate / theirs.per_s:.2f} times",
        **{f"vs_{name}_cpu": theirs.all_us / own.all_us, f"vs_{name}_rate": rate / theirs.per_s},
    )
