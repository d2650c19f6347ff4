"""The tool on a toy: it tells a test that notices from one that does not, and mends what it broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mutants import own_choice
from mutants.mutant import Mutant
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
    assert scratch.judge(toy(test), PATIENCE_S) is verdict
    assert (scratch.folder / TOY).read_text() == (root / TOY).read_text() == PROGRAM


def test_tests_that_never_end_are_ended(scratch: Scratch) -> None:
    assert scratch.run(("tests/test_toy.py",), 0) is Verdict.TIMEOUT


@pytest.mark.parametrize("old", ["age >= 18", "age == 18"], ids=["there three times", "not there"])
def test_a_mutant_that_does_not_fit_is_refused(scratch: Scratch, old: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        scratch.judge(toy("test_a_birthday", old), PATIENCE_S)
    assert (scratch.folder / TOY).read_text() == PROGRAM


def test_its_own_choice_changes_what_machines_read() -> None:
    sql = 'FIND = text("""\nSELECT id FROM t ORDER BY at DESC\n""")\n'
    assert own_choice.changes(PROGRAM) == [("    return age >= 18\n", "    return age > 18\n")]
    assert own_choice.changes(sql) == [("SELECT id FROM t ORDER BY at DESC\n", "SELECT id FROM t ORDER BY at\n")]


def test_a_seed_chooses_the_same_again(root: Path) -> None:
    (root / TOY).write_text("".join(f"a{n} = b{n} + c{n}\n" for n in range(50)))
    listed = [toy("test_a_birthday")]
    assert own_choice.choose(root, listed, 7, 5) == own_choice.choose(root, listed, 7, 5)
    assert own_choice.choose(root, listed, 7, 5) != own_choice.choose(root, listed, 8, 5)
    assert len(own_choice.choose(root, listed, 7, 100)) == 50
