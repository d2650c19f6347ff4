"""The file of cells: what it may say, whom it places where, and that nothing of a password is repeated."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from knocktwice import Client, KnocktwiceError
from knocktwice.outbox import Relay
from knocktwice_shared import cells
from knocktwice_shared.ids import uuid7
from knocktwice_worker.config import ConfigurationError, load

if TYPE_CHECKING:
    from pathlib import Path

NORTH = '[[cell]]\nname = "north"\nnumber = 0\nbroker = "redis://:secret@a/0"\nslots = "0-511"\n'
SOUTH = '[[cell]]\nname = "south"\nnumber = 200\nbroker = "redis://b/0"\nslots = "512-1022, 1023"\n'
FILE = "since = 2026-01-01T00:00:00Z\n" + NORTH + SOUTH


def read(folder: Path, text: str) -> cells.Cells:
    path = folder / "cells.toml"
    path.write_text(text)
    return cells.read(path)


def test_people_are_spread_over_the_slots_and_stay_where_they_are(tmp_path: Path) -> None:
    known = read(tmp_path, FILE)
    placed = Counter(known.of(f"user u-{n}").name for n in range(2_000))
    assert 900 < placed["north"] < 1_100
    # What is stored depends on it: these must never change.
    assert [cells.slot_of(name) for name in ("user ada", "number +16505550100")] == [914, 320]


def test_an_id_carries_its_cell_unless_it_is_older_than_the_cells(tmp_path: Path) -> None:
    known = read(tmp_path, FILE)
    south = known.named("south")
    id_ = south.marked(uuid7())
    assert (id_.version, known.of_id(id_)) == (7, south)
    assert known.of_id(cells.Cell("gone", 77, "redis://c", None).marked(uuid7())) is None
    later = cells.Cells(known.all, known.slots, datetime(2100, 1, 1, tzinfo=UTC))
    assert later.of_id(id_) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("since = ", "is no TOML"),
        (NORTH, "since must be a time with its zone"),
        (FILE.replace("512-1022, 1023", "512-1022"), "no cell has slot 1023"),
        (FILE.replace("512-", "511-"), "slot 511 is another cell's, too"),
        (FILE.replace("200", "256"), "number must be from 0 to 255"),
        (FILE.replace("200", "0"), "two cells have the same number"),
        (FILE.replace("redis://b/0", "amqp://b/0"), "must be Redis or Valkey"),
        (FILE.replace("south", "South"), "name must be of small letters"),
        (FILE.replace('slots = "512', 'share = 1\nslots = "512'), "cell 2 has no share"),
        (FILE.replace('broker = "redis://b/0"', 'broker_file = "/nowhere"'), "cannot read /nowhere"),
    ],
)
def test_a_wrong_file_is_refused_without_a_word_of_its_passwords(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(KnocktwiceError, match=complaint) as refused:
        read(tmp_path, text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"KNOCKTWICE_CELL": ""}, "go together"),
        ({"KNOCKTWICE_CELL": "east"}, "no cell 'east'"),
        ({"KNOCKTWICE_SECRET": ""}, "KNOCKTWICE_SECRET must be set"),
        ({"KNOCKTWICE_SMS_BUDGET": "10"}, "budgets cannot be counted over cells"),
    ],
)
def test_what_cannot_hold_over_cells_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], complaint: str
) -> None:
    (tmp_path / "cells.toml").write_text(FILE)
    fine = {"KNOCKTWICE_CELLS_FILE": str(tmp_path / "cells.toml"), "KNOCKTWICE_CELL": "south", "KNOCKTWICE_SECRET": "s"}
    for name, value in fine.items():
        monkeypatch.setenv(name, value)
    assert load().cells() is not None
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=complaint):
        load()


def test_a_producer_routes_by_the_variable_and_an_outbox_says_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells.toml").write_text(FILE)
    monkeypatch.setenv("KNOCKTWICE_CELLS_FILE", str(tmp_path / "cells.toml"))
    assert Client()._router is not None
    assert Client("redis://localhost/0")._router is None
    with pytest.raises(KnocktwiceError, match="does not know cells"):
        Relay(lambda: None)
