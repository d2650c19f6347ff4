"""``make soak SECONDS=3600``: ordinary traffic for an hour, measured every minute, and a judge who looks at slopes.

A leak is what grows for as long as one looks. Two figures, at the beginning and at the end, cannot tell it from a cache
that fills; so each series is judged by the median slope between all pairs of its points behind the warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from knocktwice_worker.embedded.children import Child
from oracle import scenes
from oracle.callers import Callers
from oracle.gathering import measure
from oracle.installation import Installation, Part
from oracle.records import Book, Sample
from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The part of the time that is left to caches and pools to fill.
_WARM_UP = 0.25
#: Points that a judgement needs at least.
_LEAST = 6
#: The share of pairs that must have grown: a leak does not go up and down.
_STEADY = 0.8
#: What may come on top in all the time watched: bytes, things, keys. Memory may besides grow by a tenth.
_ALLOWED = {"memory": 12e6, "threads": 2, "files": 6, "connections": 6, "keys": 20}
_MEMORY_SHARE = 0.1
_GLANCE_S = 0.05

#: A process that leaks everything that a process can leak, to see that the judge sees it.
_LEAKING = """
import os, threading, time
kept = []
while True:
    kept.append(bytearray(os.urandom(1 << 20)))
    kept.append(open(os.devnull))
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    time.sleep(0.5)
"""


def judge_slopes(samples: Sequence[Sample]) -> list[Finding]:
    """Return the series that grow steadily and by more than they may."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        series[sample.of, sample.what].append((sample.at, sample.value))
    return [finding for (of, what), points in sorted(series.items()) for finding in _judged(of, what, sorted(points))]


def _judged(of: str, what: str, points: Sequence[tuple[float, float]]) -> Iterator[Finding]:
    begin, end = points[0][0], points[-1][0]
    warm = [(at, value) for at, value in points if at >= begin + _WARM_UP * (end - begin)]
    if len(warm) < _LEAST:
        return
    slopes = [(b - a) / (later - earlier) for (earlier, a), (later, b) in combinations(warm, 2) if later > earlier]
    grown = statistics.median(slopes) * (warm[-1][0] - warm[0][0])
    middle = statistics.median(value for _, value in warm)
    allowed = _ALLOWED[what] + (_MEMORY_SHARE * middle if what == "memory" else 0)
    if grown > allowed and sum(slope > 0 for slope in slopes) >= _STEADY * len(slopes):
        hours = (warm[-1][0] - warm[0][0]) / 3600
        story = f"{what} grew by {grown:,.0f} in {hours * 60:.1f} minutes ({grown / hours:,.0f} an hour, from {middle:,.0f})"
        yield Finding(Violation.LEAK, of, end, story)


def soak(home: Path, *, seconds: float, every_s: float, per_s: float, seed: int, plant: bool = False) -> list[Sample]:
    """Run the system under traffic without faults, and return what was measured.

    Args:
        home: an empty folder.
        every_s: between two measurements.
        per_s: scenes each second.
        plant: a leaking process stands beside the others, and keys without expiry are written.
    """
    with Installation(home, {}, seed=seed) as here:
        log = Book(here.log)
        callers = Callers(here.broker_url, here.gateway_url, here.key, log)
        over = threading.Event()
        thread = threading.Thread(target=scenes.play, args=(callers, seed), kwargs={"per_s": per_s, "over": over})
        thread.start()
        if plant:
            child = Child("planted", [sys.executable, "-c", _LEAKING], here.home / "planted.log")
            child.start()
            here.parts["planted"] = Part(child)
        samples: list[Sample] = []
        end, next_at = time.monotonic() + seconds, 0.0
        try:
            while time.monotonic() < end:
                here.look()
                if time.monotonic() >= next_at:
                    next_at = time.monotonic() + every_s
                    if plant:
                        here.redis.mset({f"planted:{len(samples)}:{n}": n for n in range(20)})
                    samples += measure(here)
                    samples.append(Sample(time.time(), "broker", "keys", _lasting_keys(here)))
                time.sleep(_GLANCE_S)
        finally:
            over.set()
            thread.join()
            callers.close()
    return samples


def _lasting_keys(here: Installation) -> int:
    """Return how many keys have no expiry."""
    names = list(here.redis.scan_iter(count=1_000))
    pipe = here.redis.pipeline(transaction=False)
    for name in names:
        pipe.ttl(name)
    return sum(ttl == -1 for ttl in pipe.execute())


def main() -> int:
    """Run it from a command line."""
    options = argparse.ArgumentParser(prog="python -m oracle.soak", description=__doc__)
    options.add_argument("--seconds", type=float, default=3_600)
    options.add_argument("--every", type=float, help="seconds between two measurements; left out, 60, or a twentieth")
    options.add_argument("--per-s", type=float, default=8, help="scenes each second")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--plant", action="store_true", help="plant leaks, to see that they are seen")
    given = options.parse_args()
    every_s = given.every or min(60.0, given.seconds / 20)
    home = Path(tempfile.mkdtemp(prefix="knocktwice-soak-"))
    print(f"make soak SECONDS={given.seconds:g} SEED={given.seed} PER_S={given.per_s:g}; logs: {home}", flush=True)
    samples = soak(home, seconds=given.seconds, every_s=every_s, per_s=given.per_s, seed=given.seed, plant=given.plant)
    findings = judge_slopes(samples)
    for of, what in sorted({(sample.of, sample.what) for sample in samples}):
        values = [sample.value for sample in samples if (sample.of, sample.what) == (of, what)]
        print(f"  {of:20} {what:12} {values[0]:14,.0f} -> {values[-1]:14,.0f}")
    for finding in findings:
        print(f"{finding.violation}: {finding.who}: {finding.story}")
    print(f"{len(samples)} measurements, {len(findings)} leaks")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
