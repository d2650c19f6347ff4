"""A seed decides what goes wrong and when."""

from __future__ import annotations

from oracle.faults import plan


def _told(seed: int) -> list[tuple[float, float, str]]:
    return [(one.at, one.seconds, one.name) for one in plan(seed, 60, 36, lease_s=4, workers=2)]


def test_a_seed_always_makes_the_same_plan() -> None:
    assert _told(7) == _told(7)
    assert _told(7) != _told(8)


def test_faults_come_in_order_and_of_many_kinds() -> None:
    times = [at for at, _, _ in _told(7)]
    assert len(times) == 36
    assert times == sorted(times)
    assert max(times) < 60
    assert len({name.partition(" ")[0] for _, _, name in _told(7)}) >= 4
