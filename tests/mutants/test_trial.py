"""The tool on a toy: it tells a test that notices from one that does not, and mends what it broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mutants import own_choice
from mutants.mutant import Mutant
from mutants.report import Report
from mutants.trial import Scratch, Verdict

if TYPE_CHECKING:
    from pathlib import Path

#: Only a test that fails waits as long.
PATIENCE_S = 120
TOY = "worker/toy.py"
PROGRAM = '''"""Adults are eighteen or older, and not younger."""

# A comment: age >= 18 and so on.


def adult(age: int) -> bool:
    """Return whether age >= 18, and nothing else."""
    return age >= 18
'''
TESTS = """
from toy import adult

def test_a_man_of_forty():
    assert adult(40)

def test_a_birthday():
    assert adult(18)

def test_that_is_red_anyway():
    assert adult(17)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, text in ((TOY, PROGRAM), ("tests/test_toy.py", TESTS)):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return root


@pytest.fixture
def scratch(root: Path, tmp_path: Path) -> Scratch:
    return Scratch(root, tmp_path / "tree")


def toy(test: str, old: str = "return age >= 18") -> Mutant:
    return Mutant(TOY, old, "return age > 18", "who is eighteen is an adult", (f"tests/test_toy.py::{test}",))


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        ("test_a_birthday", Verdict.KILLED),
        ("test_a_man_of_forty", Verdict.SURVIVED),
        ("test_that_is_red_anyway", Verdict.BROKEN),
        ("test_that_is_not_there", Verdict.BROKEN),
    ],
)
def test_only_a_test_that_goes_red_kills(root: Path, scratch: Scratch, test: str, verdict: Verdict) -> None:
    report = Report()
    report.note(toy(test), *scratch.judge(toy(test), PATIENCE_S))
    report.confirm(scratch, PATIENCE_S)
    assert report[toy(test)] is verdict
    assert (scratch.folder / TOY).read_text() == (root / TOY).read_text() == PROGRAM


def test_a_test_that_never_ends_is_ended(root: Path, scratch: Scratch) -> None:
    endless = Mutant(TOY, "return age >= 18", "while True: pass", "it ends", ("tests/test_toy.py::test_a_birthday",))
    assert scratch.judge(endless, 1) == (Verdict.TIMEOUT, None)
    assert (scratch.folder / TOY).read_text() == (root / TOY).read_text()


def test_a_mutant_that_cannot_even_be_loaded_is_noticed(scratch: Scratch) -> None:
    unloadable = Mutant(TOY, "def adult(age: int)", "def adult(age: Int)", "it loads", ("tests/test_toy.py",))
    assert scratch.judge(unloadable, PATIENCE_S) == (Verdict.KILLED, None)


@pytest.mark.parametrize("old", ["age >= 18", "age == 18"], ids=["there three times", "not there"])
def test_a_mutant_that_does_not_fit_is_refused(scratch: Scratch, old: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        scratch.judge(toy("test_a_birthday", old), PATIENCE_S)
    assert (scratch.folder / TOY).read_text() == PROGRAM


@pytest.mark.parametrize(
    ("program", "becomes"),
    [
        ('FIND = text("""\nSELECT id FROM t ORDER BY at DESC\n""")\n', "SELECT id FROM t ORDER BY at\n"),
        ('FIND = text("""\nSELECT id FROM t\nWHERE a = 1\n  AND b = 2\n""")\n', "  \n"),
        ('FIND = text("""\nSELECT id FROM t\nWHERE a = 1 AND b = :b\n""")\n', "WHERE b = :b\n"),
        ("def f(x):\n    if x.y:\n        return 3\n", "    if False:\n"),
        ("def f(x):\n    g(\n        x,\n    )\n", "    pass\n"),
        ("a = [one for one in b if one and two]\n", "a = [one for one in b if one or two]\n"),
    ],
)
def test_its_own_choice_changes_what_machines_read(program: str, becomes: str) -> None:
    assert becomes in [new for _, new in own_choice.changes(program)]


def test_its_own_choice_leaves_prose_alone() -> None:
    assert {new for _, new in own_choice.changes(PROGRAM)} == {"    return age > 18\n"}


def test_lines_that_are_there_twice_are_told_apart_by_what_stands_before() -> None:
    program = "a = b + c\nd = 7\na = b + c\n"
    assert ("d = 7\na = b + c\n", "d = 7\na = b - c\n") in own_choice.changes(program)
    assert all(program.count(old) == 1 for old, _ in own_choice.changes(program))


@pytest.fixture
def storeys(root: Path) -> Path:
    path = root / "storeys.toml"
    path.write_text('[[storey]]\nfiles = ["worker/*.py"]\ntests = ["tests/test_toy.py"]\n')
    return path


def test_a_seed_chooses_the_same_again_whatever_else_changes(root: Path, storeys: Path) -> None:
    (root / TOY).write_text("".join(f"a{n} = b{n} + c{n}\n" for n in range(50)))
    seven = own_choice.choose(root, storeys, [], 7, 5)
    assert seven == own_choice.choose(root, storeys, [], 7, 5)
    assert seven != own_choice.choose(root, storeys, [], 8, 5)
    assert len(own_choice.choose(root, storeys, [], 7, 100)) == 50
    (root / "worker/another.py").write_text("x = y + z\n")
    assert len(set(seven) & set(own_choice.choose(root, storeys, [], 7, 6))) >= 5


def test_what_nothing_can_notice_is_listed_with_the_reason(root: Path, storeys: Path) -> None:
    (root / TOY).write_text("a = b + c\n")
    known = Mutant(TOY, "a = b + c", "a = b - c", "the sum", (), "c is always 0")
    (one,) = own_choice.choose(root, storeys, [known], 7, 5)
    assert one.equivalent == "c is always 0"


def test_of_many_tests_that_went_red_those_that_are_green_without_a_mutant_count(scratch: Scratch) -> None:
    report, mutants = Report(), [toy(name) for name in ("test_a_birthday", "test_that_is_red_anyway")]
    for one in mutants:
        report.note(one, *scratch.judge(one, PATIENCE_S))
    report.confirm(scratch, PATIENCE_S)
    assert [report[one] for one in mutants] == [Verdict.KILLED, Verdict.BROKEN]


def test_a_report_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    killed, survived, left = (toy(name) for name in ("test_a_birthday", "test_a_man_of_forty", "test_another"))
    first = Report(tmp_path / "results")
    first.note(killed, Verdict.KILLED)
    first.note(survived, Verdict.SURVIVED)
    again = Report(tmp_path / "results")
    assert [one in again for one in (killed, survived, left)] == [True, True, False]
    assert again.bad([killed, survived, left]) == [survived]
    told = again.table([killed, survived, left])
    assert "50.0% of 2 that are not equivalent are killed" in told
    assert "SURVIVED  worker/toy.py: who is eighteen is an adult" in told
