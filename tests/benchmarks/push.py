"""Push sending alone: how fast one process hands messages to FCM over TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figures import median
from benchmarks.push_peer import PEERS

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS = 3
#: Enough for a second or two each.
COUNTS = {"knocktwice": 20_000, "aiohttp": 6_000, "send_each": 1_500, "send_each_async": 1_000}


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    path = os.pathsep.join(p for p in sys.path if p)
    env = {**os.environ, **here.provider.environment(here.provider.url), "PYTHONPATH": path}
    rates: dict[str, float] = {}
    for name in PEERS:
        count = COUNTS[name]
        told = [_run(name, count, env) for _ in range(ROUNDS)]
        rates[name] = count / median(t["wall_s"] for t in told)
        cpu = median(t["cpu_s"] for t in told) / count * 1e6
        figures.add(name, f"{rates[name]:,.0f}/s", f"{cpu:,.0f} µs of CPU each", **{f"{name}_cpu_us": cpu})
    ratio = rates["knocktwice"] / rates["send_each"]
    figures.add(
        "against send_each", f"{ratio:.0f} times", "target: 20 times, 10,000/s", ratio=ratio, per_s=rates["knocktwice"]
    )


def _run(name: str, count: int, env: dict[str, str]) -> dict[str, float]:
    argv = [sys.executable, "-m", "benchmarks.push_peer", name, str(count)]
    out = subprocess.run(argv, env=env, check=True, stdout=subprocess.PIPE, timeout=120).stdout
    told: dict[str, float] = json.loads(out)
    return told
