"""``docs/architecture.md`` shows the house as it is: its rooms, the way through them, the states, the words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from knocktwice_worker.lifecycle import EDGES, NotificationState

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "worker" / "knocktwice_worker"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()

#: The rows of the table that follows a notification: files, and what in them does it.
WAY = re.findall(r"^\| \d+ \|[^|]*\| ([^|]*) \| ([^|]*) \|$", DOCUMENT, re.MULTILINE)

#: The words that mean one thing everywhere.
WORDS = ["notification", "step", "delivery", "receipt", "report", "hold", "claim", "part", "due", "reserve"]


def _rooms() -> list[Path]:
    files = (file for file in sorted(WORKER.rglob("__init__.py")) if "versions" not in file.parts)
    return [file for file in files if file.parent != WORKER]


def test_every_room_is_on_the_map_with_what_it_is_for() -> None:
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", DOCUMENT, re.MULTILINE))
    assert set(rows) == {file.parent.relative_to(WORKER).as_posix() for file in _rooms()}
    assert [room for room, charter in rows.items() if not charter] == []


def test_every_file_outside_the_rooms_is_named() -> None:
    files = {path.name for path in WORKER.glob("*.py")} - {"__init__.py"}
    section = DOCUMENT.partition("## The rooms")[2].partition("\n## ")[0]
    assert files == set(re.findall(r"`(\w+\.py)`", section)) - {"__init__.py"}


@pytest.mark.parametrize("row", range(len(WAY)))
def test_each_function_on_a_notifications_way_is_in_the_file_that_is_named(row: int) -> None:
    files, names = (re.findall(r"`([^`]*)`", cell) for cell in WAY[row])
    defined: set[str] = set()
    for file in files:
        path = ROOT / file if file.startswith(("producer/", "shared/")) else WORKER / file
        defined |= _defined(path)
    assert names
    assert set(names) <= defined


def _defined(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def test_the_way_is_followed_to_its_end() -> None:
    assert len(WAY) > 10


def test_the_diagrams_show_exactly_the_allowed_changes_of_state() -> None:
    notification, delivery = (
        set(re.findall(r"^ +(\S+) --> (\w+)", block, re.MULTILINE))
        for block in re.findall(r"^```mermaid\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    )
    assert {(old, new) for old, new in delivery if old != "[*]"} == {(str(old), str(new)) for old, new in EDGES}
    assert {new for _, new in notification} == {str(state) for state in NotificationState}


def test_the_glossary_has_the_words_that_the_code_uses() -> None:
    glossary = DOCUMENT.partition("## Glossary")[2]
    assert [word for word in WORDS if f"| *{word}* |" not in glossary] == []
