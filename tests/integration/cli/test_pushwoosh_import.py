"""``knocktwice import pushwoosh``: an export with dirt in it is accounted for row by row,
twice with the same result.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import TagsSet
from knocktwice_worker.audience import hwids, people, profile
from knocktwice_worker.database.schema import metadata
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

COLUMNS = ["Hwid", "Push Token", "User ID", "Device Type", "Language", "Last Application Open", "Tags", "City", "Plan"]
TABLES = tuple(metadata.tables[name] for name in ("users", "devices", "phones", "hwids"))
SEEN = "2026-05-03 12:00:00"
#: Rows of the large export.
ROWS = int(os.environ.get("KNOCKTWICE_TEST_ROWS", "2000"))
#: Where each kind of row is told, and what it says.
KINDS: dict[str, Callable[[int], list[str]]] = {
    "taken": lambda n: [f"hwid-{n}", f"token-{n}", f"u-{n}", "3", "de", SEEN, json.dumps({"Name": f"N{n}"}), "X", ""],
    "taken alone": lambda n: [f"hwid-{n}", f"token-{n}", "", "Android", "", SEEN, "", "", "gold"],
    "taken number": lambda n: [f"+1 650 253 {n % 10_000:04}", "", f"n-{n}", "18", "", SEEN, "", "", ""],
    "person_only": lambda n: [f"hwid-{n}", "ab" * 32, f"a-{n}", "1", "", SEEN, '{"vip": true}', "", ""],
    "merged": lambda _: ["hwid-0", "token-0", "u-0", "3", "", "2026-01-01 00:00:00", "", "", ""],
    "refused number": lambda n: [f"+1 65{n % 10}", "", f"n-{n}", "18", "", SEEN, "", "", ""],
    "refused token": lambda n: [f"hwid-{n}", "", f"u-{n}", "3", "", SEEN, "", "", ""],
    "refused tags": lambda n: [f"hwid-{n}", f"token-{n}", "", "3", "", SEEN, '{"x', "", ""],
    "refused time": lambda n: [f"hwid-{n}", f"token-{n}", "", "3", "", "yesterday", "", "", ""],
    "refused fields": lambda n: [f"hwid-{n}", "too few"],
    "refused hwid": lambda n: ["", f"token-{n}", "u", "3", "", SEEN, "", "", ""],
    "refused kind": lambda n: [f"hwid-{n}", f"token-{n}", "", "9", "", SEEN, "", "", ""],
}


def _written(path: Path, rows: list[list[str]], between: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=between)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def _state() -> list[Any]:
    """Return what the tables hold, but for when it was written."""
    times = {"updated_at", "changed_at"}
    with services().engine.connect() as conn:
        return [
            sorted(
                tuple(map(str, row))
                for row in conn.execute(sa.select(*(column for column in table.columns if column.name not in times)))
            )
            for table in TABLES
        ]


def test_an_export_with_dirt_is_imported_twice_with_the_same_result(run: Run, tmp_path: Path) -> None:
    kinds = [["taken", *KINDS][n % (len(KINDS) + 1)] for n in range(ROWS)]
    path = _written(tmp_path / "everybody.csv", [KINDS[kind](n) for n, kind in enumerate(kinds)])
    refused = tmp_path / "refused.csv"
    expected = Counter(kind.split()[0] for kind in kinds)
    # Ten thousand numbers are there; from then on they come again, and with another person.
    done = run("import", "pushwoosh", str(path), "--json", "--refused", str(refused))
    assert done.code == 1
    told = done.json
    assert {name: told[name] for name in expected} == dict(expected)
    assert told["rows"] == ROWS == sum(expected.values())
    with refused.open(newline="") as file:
        named = {int(row["line"]): row["problem"] for row in csv.DictReader(file)}
    # The header is the first line.
    wrong = {n + 2 for n, kind in enumerate(kinds) if kind.split()[0] in ("refused", "person_only")}
    assert named.keys() == wrong
    before = _state()
    again = run("import", "pushwoosh", str(path), "--json")
    assert (again.json, _state()) == (told, before)


def test_what_was_taken_is_where_it_belongs(run: Run, tmp_path: Path) -> None:
    rows = [
        KINDS["taken"](1),
        KINDS["taken alone"](2),
        ["whatsapp:+16502530003", "", "u-1", "21", "", SEEN, "", "", ""],
        KINDS["person_only"](4),
    ]
    told = run("import", "pushwoosh", str(_written(tmp_path / "e.csv", rows, ";")), "--json").json
    assert (told["taken"], told["person_only"], told["refused"]) == (3, 1, 0)
    with services().engine.connect() as conn:
        one, alone, four = (profile.find(conn, user) for user in ("u-1", "hwid-2", "a-4"))
        named = hwids.find(conn, ["hwid-1", "hwid-2", "hwid-4"])
    assert one
    assert alone
    assert four
    assert ([(d.registration, d.platform, d.locale) for d in one.devices], one.phone, one.tags) == (
        [("token-1", "android", "de")],
        "+16502530003",
        {"Name": "N1"},
    )
    # A device without a user is its own person, and a column of its own is a tag.
    assert ([d.registration for d in alone.devices], alone.tags) == (["token-2"], {"Plan": "gold"})
    assert (four.devices, four.tags) == ([], {"vip": True})
    assert named == {"hwid-1": ("u-1", "token-1"), "hwid-2": ("hwid-2", "token-2")}


def test_a_dry_run_changes_nothing_and_says_the_same(run: Run, tmp_path: Path) -> None:
    path = _written(tmp_path / "e.csv", [KINDS["taken"](1), KINDS["refused tags"](2)])
    tried = run("import", "pushwoosh", str(path), "--json", "--dry-run").json
    assert _state() == [[], [], [], []]
    assert run("import", "pushwoosh", str(path), "--json").json == {**tried, "dry_run": False}


def test_what_the_application_has_said_since_stays(run: Run, tmp_path: Path) -> None:
    with services().engine.begin() as conn:
        people.apply(conn, [TagsSet("u-1", {"Name": "Ada"}, datetime(2026, 6, 1, tzinfo=UTC))])
        hwids.name(conn, "hwid-1", user="u-9", registration="newer")
    run("import", "pushwoosh", str(_written(tmp_path / "e.csv", [KINDS["taken"](1)])))
    with services().engine.connect() as conn:
        found = profile.find(conn, "u-1")
        assert found
        assert found.tags == {"Name": "Ada"}
        assert hwids.find(conn, ["hwid-1"]) == {"hwid-1": ("u-9", "newer")}


@pytest.mark.parametrize("content", ["name,phone\n", ""])
def test_a_file_that_is_no_export_says_so(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(content)
    done = run("import", "pushwoosh", str(path))
    assert (done.code, "it has no column hwid" in done.err) == (1, True)
    assert "cannot be read" in run("import", "pushwoosh", str(tmp_path / "none.csv")).err
