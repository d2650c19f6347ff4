"""The draw of the experiment: as many as were asked for, always the same ones, and nobody moves without need."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from knocktwice_worker.notifications.pipeline.experiment import Arm, Experiment

IDS = [f"0197a5c0-0000-7000-8000-{n:012}" for n in range(4_000)]
DUE, WAIT = datetime(2026, 6, 1, 12, tzinfo=UTC), timedelta(minutes=10)


def experiment(held_out: float = 0, probe: float = 0, secret: bytes = b"secret") -> Experiment:
    return Experiment(held_out, probe, WAIT, secret)


def drawn(one: Experiment) -> dict[str, Arm]:
    return {id_: one.arm(id_) for id_ in IDS}


@pytest.mark.parametrize(("held_out", "probe", "is_one"), [(0, 0, False), (0.1, 0, True), (0, 0.1, True)])
def test_it_is_one_if_any_share_is_set(held_out: float, probe: float, is_one: bool) -> None:
    assert bool(experiment(held_out, probe)) is is_one


def test_the_shares_are_those_that_were_asked_for() -> None:
    assert set(drawn(experiment()).values()) == {Arm.TEXTED}
    assert set(drawn(experiment(held_out=1)).values()) == {Arm.HELD_OUT}
    assert set(drawn(experiment(probe=1)).values()) == {Arm.PROBE}
    arms = Counter(drawn(experiment(0.1, 0.2)).values())
    assert arms[Arm.HELD_OUT] / len(IDS) == pytest.approx(0.1, abs=0.02)
    assert arms[Arm.PROBE] / len(IDS) == pytest.approx(0.2, abs=0.02)


def test_a_change_of_one_share_moves_nobody_between_the_other_two() -> None:
    before, after = drawn(experiment(0.1, 0.2)), drawn(experiment(0.3, 0.2))
    moved = {(before[id_], after[id_]) for id_ in IDS if before[id_] is not after[id_]}
    assert moved == {(Arm.TEXTED, Arm.HELD_OUT)}


def test_another_secret_draws_others() -> None:
    assert drawn(experiment(0.5)) != drawn(experiment(0.5, secret=b"another"))


@pytest.mark.parametrize(
    ("later", "useful_for", "until"),
    [
        (timedelta(), timedelta(hours=1), DUE + WAIT),
        (timedelta(minutes=9), timedelta(hours=1), DUE + WAIT),
        (WAIT, timedelta(hours=1), None),
        (timedelta(), WAIT, None),
    ],
)
def test_the_probe_waits_from_when_it_was_due_if_it_is_of_use_then(
    later: timedelta, useful_for: timedelta, until: datetime | None
) -> None:
    assert experiment(probe=1).waits_until(DUE, DUE + later, useful_for) == until
