"""A soak sees what grows for as long as one looks, and takes nothing else for a leak."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from oracle.records import Sample
from oracle.soak import judge_slopes, soak

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MB = 1e6
HOUR = 60


def series(what: str, value: Callable[[int], float], points: int = HOUR) -> list[Sample]:
    """One figure a minute."""
    return [Sample(60.0 * minute, "worker1 7", what, value(minute)) for minute in range(points)]


_noise = random.Random(7)

LEAKS: dict[str, list[Sample]] = {
    "memory": series("memory", lambda m: 150 * MB + 0.9 * MB * m + _noise.uniform(-1, 1) * MB),
    "a thread every ten minutes": series("threads", lambda m: 20 + m // 10),
    "files": series("files", lambda m: 40 + m / 4),
    "connections": series("connections", lambda m: 10 + m / 5),
    "keys without expiry": series("keys", lambda m: 12 + m),
}
FINE: dict[str, list[Sample]] = {
    "memory that a cache fills": series("memory", lambda m: 200 * MB - 80 * MB * math.exp(-m / 5)),
    "memory that goes up and down": series("memory", lambda m: 150 * MB + 40 * MB * math.sin(m)),
    "memory that creeps by less than a tenth": series("memory", lambda m: 150 * MB + 0.2 * MB * m),
    "threads that come and go": series("threads", lambda m: 20 + (m * 7) % 5),
    "a pool that grew once": series("connections", lambda m: 10 if m < 30 else 14),
    "too few points": series("memory", lambda m: 150 * MB + 50 * MB * m, points=5),
}


@pytest.mark.parametrize("samples", LEAKS.values(), ids=LEAKS)
def test_what_grows_all_the_time_is_a_leak(samples: list[Sample]) -> None:
    (finding,) = judge_slopes(samples)
    assert finding.who == "worker1 7"
    assert f"{samples[0].what} grew by " in finding.story
    assert "an hour" in finding.story


@pytest.mark.parametrize("samples", FINE.values(), ids=FINE)
def test_what_only_fills_or_swings_is_none(samples: list[Sample]) -> None:
    assert judge_slopes(samples) == []


def test_a_planted_leak_is_seen_within_a_minute_and_the_gateway_and_the_workers_leak_no_threads(tmp_path: Path) -> None:
    samples = soak(tmp_path, seconds=60, every_s=2, per_s=4, seed=7, plant=True)
    found = {(finding.who.split()[0], finding.story.split()[0]) for finding in judge_slopes(samples)}
    assert {("planted", "memory"), ("planted", "threads"), ("planted", "files"), ("broker", "keys")} <= found
    assert not [who for who, what in found if what == "threads" and who != "planted"]
