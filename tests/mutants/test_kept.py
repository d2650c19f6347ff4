"""The kept lists and the storeys fit the program and its tests as they are today."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mutants.mutant import Mutant, read

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
KEPT = read(FOLDER / "kept")


@pytest.mark.parametrize("mutant", KEPT, ids=[f"{one.file.rpartition('/')[2]}: {one.promise}" for one in KEPT])
def test_a_kept_mutant_fits(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text("utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert bool(mutant.tests) != bool(mutant.equivalent)
    for test in mutant.tests:
        path, *names = test.split("::")
        text = (ROOT / path).read_text("utf-8")
        assert all(f"def {name}(" in text for name in names)


def test_each_is_there_once() -> None:
    assert len({(one.file, one.old, one.new) for one in KEPT}) == len(KEPT)


def test_the_storeys_name_files_and_tests_that_are_there() -> None:
    for storey in tomllib.loads((FOLDER / "storeys.toml").read_text("utf-8"))["storey"]:
        assert all(list(ROOT.glob(pattern)) for pattern in storey["files"])
        assert all((ROOT / test).exists() for test in storey["tests"])
