"""SQL is read where it stands: no line of a statement is longer than an editor shows beside another one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import knocktwice_worker

ROOT = Path(knocktwice_worker.__file__).parent
#: A migration that was released stays as it is.
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if "versions" not in path.parts]
MOST = 120
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|FROM|JOIN|WHERE|AND)\s")


def long_lines(source: str) -> list[int]:
    """Return the numbers of lines of SQL that are too long."""
    lines = source.splitlines()
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and _SQL.match(text.value):
            assert isinstance(node, ast.expr)
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sorted(n for n in found if len(lines[n - 1]) > MOST)


def test_no_line_of_a_statement_is_too_long() -> None:
    found = {str(path.relative_to(ROOT)): long_lines(path.read_text()) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_a_long_line_is_found() -> None:
    columns = ", ".join(f"column_{n}" for n in range(20))
    assert long_lines(f'ONE = """\nSELECT {columns}\n"""\nTWO = text(f"SELECT {columns}, {{x}}")\n') == [2, 4]
    assert long_lines(f'"""{columns}"""\nONE = "{columns}"\nTWO = "SELECT 1"\n') == []
