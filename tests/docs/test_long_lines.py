"""SQL is read where it stands: no line of a text in our code is longer than an editor shows beside another one."""

from __future__ import annotations

import ast
from pathlib import Path

import knocktwice_worker

ROOT = Path(knocktwice_worker.__file__).parent
#: A migration that was released stays as it is.
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if "versions" not in path.parts]
MOST = 120


def long_lines(source: str) -> list[int]:
    """Return the numbers of lines that are too long and belong to a text that is no docstring."""
    lines, tree = source.splitlines(), ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]
    numbers = {n for t in texts if id(t) not in docstrings for n in range(t.lineno, (t.end_lineno or t.lineno) + 1)}
    return sorted(n for n in numbers if len(lines[n - 1]) > MOST)


def test_no_line_of_a_text_is_too_long() -> None:
    found = {str(path.relative_to(ROOT)): long_lines(path.read_text()) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_a_long_line_is_found() -> None:
    assert long_lines(f'"""{"x" * 200}"""\nQUERY = """\nSELECT {"x" * 120}\n"""\n') == [3]
