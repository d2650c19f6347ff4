"""``knocktwice segment``: the documents' example does what they say, and what goes wrong is one line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from knocktwice.testing import RecordingClient
from knocktwice_worker.audience import people
from knocktwice_worker.audience.segment_fields import FIELDS, OPS, Kind
from knocktwice_worker.audience.segment_filter import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

DOCUMENT = (Path(__file__).parents[3] / "docs" / "segments.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


class Terminal:
    """Types a command and reads what it prints."""

    def __init__(self, run: Callable[..., CommandOutput]) -> None:
        self._run = run

    def __call__(self, command: str, *, exits: int = 0) -> str:
        told = self._run(*shlex.split(command)[1:])
        assert told.code == exits, told
        return told.out if exits == 0 else told.err


@pytest.fixture
def terminal(run: Callable[..., CommandOutput]) -> Terminal:
    return Terminal(run)


def test_the_documents_example_gives_what_they_show(here: Services, terminal: Terminal) -> None:
    client = RecordingClient()
    exec(blocks("python")[0], {"client": client})  # noqa: S102 - our own document
    with here.engine.begin() as conn:
        people.apply(conn, client.changes)
    session = re.split(r"^\$ ", blocks("console")[0], flags=re.MULTILINE)[1:]
    assert len(session) == 2
    for typed in session:
        # A command goes on while a quotation is open.
        lines, command = typed.splitlines(keepends=True), ""
        while not command or command.count("'") % 2:
            command += lines.pop(0)
        assert terminal(command) == "".join(lines)


@pytest.mark.parametrize("number", range(2))
def test_each_filter_in_the_documents_is_one(number: int) -> None:
    parse_json(blocks("json")[number])


def test_the_documents_name_each_field_with_its_comparisons() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [^|]+ \| ([^|]+) \|$", DOCUMENT, re.MULTILINE))
    kinds = {"tags.NAME": Kind.TAG, **FIELDS}
    assert {field: re.findall("`(.+?)`", ops) for field, ops in rows.items()} == {
        field: [str(op) for op in OPS[kind]] for field, kind in kinds.items()
    }


def test_a_segment_is_put_listed_shown_and_deleted(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text('{"field": "tags.city", "op": "=", "value": "Wien [bold]"}')
    assert terminal(f"knocktwice segment put vienna --filter @{file}") == "saved; 0 people belong now\n"
    assert terminal(f"knocktwice segment put vienna --filter @{file}") == "unchanged; 0 people belong now\n"
    shown = json.loads(terminal("knocktwice segment show vienna --count --sample 2 --json"))
    assert (shown["name"], shown["count"], shown["sample"]) == ("vienna", 0, [])
    assert shown["filter"] == json.loads(file.read_text())
    assert "[bold]" in terminal("knocktwice segment show vienna")
    (listed,) = json.loads(terminal("knocktwice segment list --json"))
    assert listed == {k: shown[k] for k in ("name", "description", "filter", "updated_at")}
    assert "vienna" in terminal("knocktwice segment list")
    assert terminal("knocktwice segment delete vienna") == "deleted\n"
    assert json.loads(terminal("knocktwice segment list --json")) == []


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("show no-such", "no segment 'no-such'; 'knocktwice segment list' shows those there are"),
        ("delete no-such", "no segment 'no-such'"),
        ("put x --filter {", "filter: is not JSON"),
        ("put x --filter @/no/such/file", "filter: cannot be read from /no/such/file"),
        ("""put x --filter '{"and": [{"field": "tags.a", "op": "~", "value": 1}]}'""", "filter.and[0].op: must be one"),
        ("""put '' --filter '{"everyone": true}'""", "name: must be 1 to 100 printable characters"),
    ],
)
def test_a_mistake_is_one_line_and_exits_1(terminal: Terminal, command: str, complaint: str) -> None:
    told = " ".join(terminal(f"knocktwice segment {command}", exits=1).split())
    assert told.startswith(f"error: {complaint}")
