"""Wall time, CPU time by role, and what the servers wrote: who does the work is as telling as how long it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

#: Role → the processes that play it, children included.
Roles = Callable[[], Mapping[str, list[int]]]


@dataclass
class Spent:
    """What a stretch of work cost."""

    wall_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    def cpu_us(self, role: str, count: int) -> float:
        """CPU per piece of work, in microseconds."""
        return self.cpu_s[role] / count * 1e6

    def all_us(self, count: int) -> float:
        """CPU of all processes per piece of work, in microseconds."""
        return sum(self.cpu_us(role, count) for role in self.cpu_s)

    def most_per_s(self, count: int) -> float:
        """The rate that this machine's cores allow at this cost. A higher rate was counted wrongly."""
        return (os.cpu_count() or 1) * 1e6 / self.all_us(count)

    def shares(self, count: int) -> str:
        """Say who spent how much per piece."""
        return ", ".join(f"{role} {self.cpu_us(role, count):,.0f}" for role in self.cpu_s) + " µs"


@contextmanager
def measure(roles: Roles) -> Iterator[Spent]:
    """Fill in what the block cost. Processes must not come or go meanwhile, except children of the ones named."""
    spent = Spent()
    before, start = _cpu(roles()), time.perf_counter()
    yield spent
    spent.wall_s = time.perf_counter() - start
    spent.cpu_s = {role: seconds - before[role] for role, seconds in _cpu(roles()).items()}


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    return sum(process.memory_info().rss for process in _family(pid)) / 1e6


def _cpu(roles: Mapping[str, list[int]]) -> dict[str, float]:
    return {role: sum(_cpu_of(pid) for pid in pids) for role, pids in roles.items()}


def _cpu_of(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            # Its parent counts it from now on.
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]
