"""The model of a day: what it predicts without being fitted to it, and that its plan follows from what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import model

MEASURED = json.loads(Path(model.__file__).with_name("measured.json").read_text())


def plan(*words: str) -> model.Plan:
    return model.plan(MEASURED, model.options().parse_args(words))


def test_what_was_measured_elsewhere_is_predicted_within_a_tenth_but_for_single_calls() -> None:
    *batches, single = model.checks(MEASURED)
    assert all(abs(check.error) <= 0.10 for check in batches), batches
    # It is no use for single calls, and docs/scaling.md says so.
    assert single.error == pytest.approx(0.29, abs=0.01)


def test_twice_the_day_takes_twice_the_servers() -> None:
    once, twice = plan(), plan("--day", "2e9")
    assert twice.peak == 2 * once.peak
    assert twice.cores["postgres"] == pytest.approx(2 * once.cores["postgres"])
    assert 2 * once.cells - 1 <= twice.cells <= 2 * once.cells


def test_more_firebase_projects_leave_our_own_servers_as_the_bottleneck() -> None:
    assert plan().bottleneck.startswith("FCM's quota")
    assert plan("--fcm-projects", "10").bottleneck == "PostgreSQL's disk"
    assert plan("--fcm-projects", "10", "--keep-days", "1").bottleneck != "PostgreSQL's disk"


def test_pushes_that_were_refused_are_gone_sooner_with_more_room() -> None:
    given = model.options().parse_args([])
    waiting, minutes = model.refused(plan(), given)
    assert waiting == pytest.approx(1e9 / 86_400 * 1_200)
    tight = model.options().parse_args(["--friday", "1", "--peak-hour", "0.045"])
    assert model.refused(model.plan(MEASURED, tight), tight)[1] > minutes
