"""The tool's own choice: simple changes by seed, in the rooms whose storeys are listed,
against the tests of the storey.
"""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from typing import TYPE_CHECKING

from mutants.mutant import Mutant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: What is changed into what, in one line. SQL and Lua stand in the same files, so these are words and signs of all
#: three.
_SWAPS = (
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r" == ", " != "),
    (r" != ", " == "),
    (r" ~= ", " == "),
    (r" <> ", " = "),
    (r" is not None\b", " is None"),
    (r" is None\b", " is not None"),
    (r" IS NOT NULL\b", " IS NULL"),
    (r" IS NULL\b", " IS NOT NULL"),
    (r" and ", " or "),
    (r" or ", " and "),
    (r"\bnot ", ""),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bTrue\b", "False"),
    (r"\bFalse\b", "True"),
    (r" DESC\b", ""),
    (r"\bORDER BY ([\w.]+)(?=,| LIMIT| FOR|\)|$)", r"ORDER BY \1 DESC"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r"\bsorted\(", "list("),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bcontinue$", "pass"),
    (r"(?<=[ (])0(?=[,) ]|$)", "1"),
    (r"(?<=[ (])1(?=[,) ]|$)", "2"),
)
#: A condition of SQL among others: it is left out.
_CONJUNCTS = (
    (r"^(\s+)AND (?!NOT EXISTS \($)(?!\($)[^()]*(\([^()]*\)[^()]*)*$", r"\1"),
    (
        r" AND (?:[\w.]+ (?:=|<|>|<=|>=|<>) [\w.:']+|[\w.]+ IN \([^()]*\)|[\w.]+ IS (?:NOT )?NULL|\{is_in\([^()]*\)\})",
        "",
    ),
    (r"\bWHERE (?:[\w.]+ (?:=|<|>|<=|>=|<>) [\w.:']+|[\w.]+ IS (?:NOT )?NULL) AND ", "WHERE "),
)
#: A text in triple quotes that begins a line is prose; one that is given a name or handed on is a program, too: SQL.
_DOCSTRING = re.compile(r'^[ ]*""".*?"""', re.DOTALL | re.MULTILINE)
#: Lines that say nothing to a machine, or only to a type checker or to people.
_IDLE = re.compile(r'^\s*(#|--|"""|import |from |if TYPE_CHECKING|@|log\.|raise |[\w.]+Error\()')
#: Statements without which a program says or asks less, and does the same.
_SAYS = ("log.", "super().", "parser.")
#: Lines by which one that is there more than once is told from the others.
_MOST_BEFORE = 8


def choose(root: Path, storeys: Path, kept: Iterable[Mutant], seed: int, count: int) -> list[Mutant]:
    """Return mutants by a seed. What the kept list calls equivalent is listed as such here, too.

    Each is drawn for itself, so that a change of one file leaves the choice in the others as it was.

    Args:
        root: the tree.
        storeys: which tests go with which files, see :func:`tests_of`.
        count: how many, as far as there are so many.
    """
    equivalent = {(one.file, one.old.strip(), one.new.strip()): one.equivalent for one in kept if one.equivalent}
    found: list[Mutant] = []
    for file, tests in tests_of(root, storeys).items():
        for old, new in changes((root / file).read_text("utf-8"), file):
            shown = f"{_short(old)} → {_short(new)}"
            why = equivalent.get((file, old.strip(), new.strip()))
            found.append(Mutant(file, old, new, shown, () if why else tests, why))
    return sorted(found, key=lambda one: _drawn(one, seed))[:count]


def _drawn(one: Mutant, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{one.file}|{one.old}|{one.new}".encode()).digest()


def tests_of(root: Path, storeys: Path) -> dict[str, tuple[str, ...]]:
    """Return file → its tests, cheapest first, from a list of tables ``[[storey]]`` with
    ``files`` (patterns) and ``tests``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for storey in tomllib.loads(storeys.read_text("utf-8"))["storey"]:
        for pattern in storey["files"]:
            for path in sorted(root.glob(pattern)):
                found.setdefault(str(path.relative_to(root)), tuple(storey["tests"]))
    return found


def changes(text: str, file: str = "x.py") -> list[tuple[str, str]]:
    """Return changes of a program, each as the text that is there once and what becomes of it; prose is left alone."""
    lines = text.splitlines(keepends=True)
    prose = _prose(text)
    found: dict[tuple[str, str], None] = {}
    for number, line in enumerate(lines):
        if number in prose or _IDLE.match(line) or not line.strip():
            continue
        for changed in _of_line(line):
            if pair := _told_apart(lines, number, number + 1, changed):
                found[pair] = None
    if file.endswith(".py"):
        for first, last, changed in _of_tree(text, lines):
            if pair := _told_apart(lines, first, last, changed):
                found[pair] = None
    return list(found)


def _of_line(line: str) -> Iterator[str]:
    for pattern, new in _SWAPS:
        for match in re.finditer(pattern, line.rstrip("\n")):
            before = line[: match.start()]
            # What stands behind a comment sign is prose.
            if " # " not in before and not (before.count("'") % 2 and " " in match[0]):
                yield before + match.expand(new) + line[match.end() :]
    for pattern, new in _CONJUNCTS:
        for match in re.finditer(pattern, line.rstrip("\n")):
            yield line[: match.start()] + match.expand(new) + line[match.end() :]
    if re.match(r"\s+redis\.call\(.*\)$", line.rstrip("\n")):
        yield "\n"


def _of_tree(text: str, lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield dropped statements and conditions that always or never hold, as first line,
    line behind the last, new text.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
            source = ast.unparse(node.value)
            if not source.startswith(_SAYS) and node.end_lineno:
                yield node.lineno - 1, node.end_lineno, " " * node.col_offset + "pass\n"
        elif isinstance(node, ast.If) and node.test.end_lineno == node.lineno and not node.orelse:
            line = lines[node.lineno - 1]
            source = line[node.test.col_offset : node.test.end_col_offset]
            if source != "TYPE_CHECKING" and ":=" not in source:
                for always in ("True", "False"):
                    changed = line[: node.test.col_offset] + always + line[node.test.end_col_offset :]
                    yield node.lineno - 1, node.lineno, changed


def _told_apart(lines: Sequence[str], first: int, last: int, changed: str) -> tuple[str, str] | None:
    """Return old and new text with as many of the lines before as it takes to be there once."""
    text = "".join(lines)
    if changed == "".join(lines[first:last]):
        return None
    for start in range(first, max(first - _MOST_BEFORE, -1), -1):
        old = "".join(lines[start:last])
        if text.count(old) == 1:
            return old, "".join(lines[start:first]) + changed
    return None


def _prose(text: str) -> set[int]:
    """Return the numbers of lines in docstrings."""
    numbers: set[int] = set()
    for match in _DOCSTRING.finditer(text):
        first = text.count("\n", 0, match.start())
        numbers |= set(range(first, first + match[0].count("\n") + 1))
    return numbers


def _short(text: str) -> str:
    last = text.strip("\n").rpartition("\n")[2].strip()
    return last or "(nothing)"
