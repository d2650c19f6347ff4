"""What the producer library costs an application: importing it, one call, many in one call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.figures import median, spread
from knocktwice import Client, Push, Recipient, Sms

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, MANY, SINGLE = 5, 50_000, 1_000
_PUSH, _SMS = Push("Order {{ order }} is ready", "Hi {{ name }}, pick it up before 19:45."), Sms("Order {{ order }}")


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    with Client(here.broker_url) as client:
        many, cpus = [], []
        for _ in range(ROUNDS):
            people = [Recipient(user=f"user-{n}", params={"name": "Ana", "order": n}) for n in range(MANY)]
            wall, cpu = _timed(lambda people=people: client.notify_many(people, push=_PUSH, sms=_SMS))  # type: ignore[misc]
            many.append(MANY / wall)
            cpus.append(cpu / MANY * 1e6)
            here.empty_the_broker()
        single = []
        for _ in range(ROUNDS):
            wall, cpu = _timed(lambda: _one_by_one(client))
            single.append(SINGLE / wall)
            here.empty_the_broker()
    rate, one = median(many), median(single)
    figures.add("notify_many()", f"{rate:,.0f}/s", f"{spread(many)}; {median(cpus):.1f} µs of CPU; target: 50,000/s")
    figures.add_as("notify_many.per_s", rate)
    figures.add("notify()", f"{one:,.0f}/s", f"{spread(single)}; {cpu / SINGLE * 1e6:.0f} µs of CPU, one thread")
    figures.add_as("notify.per_s", one)
    seconds = median(_import("import knocktwice") for _ in range(ROUNDS)) - median(
        _import("pass") for _ in range(ROUNDS)
    )
    figures.add("import knocktwice", f"{seconds:.3f} s", "beyond starting Python")
    figures.add_as("import.s", seconds)


def _one_by_one(client: Client) -> None:
    for n in range(SINGLE):
        client.notify(user=f"user-{n}", params={"name": "Ana", "order": n}, push=_PUSH, sms=_SMS)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _import(statement: str) -> float:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=env)
    return time.perf_counter() - start
