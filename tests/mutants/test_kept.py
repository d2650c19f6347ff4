"""The kept list fits the program and its tests as they are today."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants.mutant import Mutant, read

ROOT = Path(__file__).parents[2]
KEPT = read(Path(__file__).with_name("kept.toml"))


@pytest.mark.parametrize("mutant", KEPT, ids=[f"{one.file.rpartition('/')[2]}: {one.promise}" for one in KEPT])
def test_a_kept_mutant_fits(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text("utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert bool(mutant.tests) != bool(mutant.equivalent)
    for test in mutant.tests:
        path, *names = test.split("::")
        text = (ROOT / path).read_text("utf-8")
        assert all(f"def {name}(" in text for name in names)
