"""The tool's own choice: simple changes of operators and constants, by seed, in the files that the kept list names."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from mutants.mutant import Mutant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: What is changed into what. SQL and Lua stand in the same files, so these are words and signs of all three languages.
_SWAPS = (
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r" == ", " != "),
    (r" and ", " or "),
    (r" AND ", " OR "),
    (r"\bnot ", ""),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bTrue\b", "False"),
    (r" DESC\b", ""),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
)
#: A text in triple quotes that begins a line is prose; one that is given a name or handed on is a program, too: SQL.
_DOCSTRING = re.compile(r'^[ ]*""".*?"""', re.DOTALL | re.MULTILINE)
#: Lines that say nothing to a machine, or only to a type checker.
_IDLE = re.compile(r'^\s*(#|--|"""|import |from |if TYPE_CHECKING|@|log\.)')


def choose(root: Path, listed: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """Return mutants by a seed, of lines that stand once in their file, against all tests that the list has for the file."""
    tests: dict[str, set[str]] = {}
    for one in listed:
        tests.setdefault(one.file, set()).update(one.tests)
    found = [
        Mutant(file, old, new, f"{old.strip()} → {new.strip()}", tuple(sorted(tests[file])))
        for file in sorted(tests)
        if tests[file]
        for old, new in changes((root / file).read_text("utf-8"))
    ]
    return random.Random(seed).sample(found, min(count, len(found)))


def changes(text: str) -> list[tuple[str, str]]:
    """Return the lines of a program that can be changed, each with what it becomes; docstrings and comments are left alone."""
    found: list[tuple[str, str]] = []
    for line in _DOCSTRING.sub("", text).splitlines(keepends=True):
        # A line that stands twice, or went with a docstring, cannot be told from its like.
        if _IDLE.match(line) or text.count(line) != 1:
            continue
        for pattern, new in _SWAPS:
            changed, times = re.subn(pattern, new, line, count=1)
            if times:
                found.append((line, changed))
    return found
