"""``opt-out import`` and ``export``: every row is accounted for, and a list that is exported comes back as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

FILE = """\ufeffName;Phone;Source;Since
Ada;+1 650 555 0100;letter;2026-05-03T12:00:00+02:00
Ben;+16505550101;;

Cid;+1-650-555-0100;again;
Dora;;;
Emil;06505550102;;
Fay;+16505550103;;yesterday
"""


def _counts(report: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in report.items() if name not in ("refused", "dry_run")}


def test_every_row_of_a_file_is_accounted_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(FILE, encoding="utf-8")
    tried = run("opt-out", "import", str(path), "--dry-run", "--json")
    assert (tried.code, run("opt-out", "list", "--json").json) == (1, [])
    done = run("opt-out", "import", str(path), "--json")
    # An empty line is a row without a number.
    expected = {"rows": 7, "added": 2, "present": 0, "repeated": 1, "empty": 2}
    assert _counts(tried.json) == _counts(done.json) == expected
    assert [refused["line"] for refused in done.json["refused"]] == [7, 8]
    assert done.json["refused"][1]["problem"].startswith("since: ")
    assert "0102" not in done.out
    listed = run("opt-out", "list", "--json").json
    assert [(one["number"], one["source"]) for one in listed] == [
        ("+16505550100", "letter"),
        ("+16505550101", "import"),
    ]
    assert listed[0]["since"].startswith("2026-05-03T10:00:00")
    again = run("opt-out", "import", str(path))
    assert "7 rows: 0 added, 2 on the list before, 1 repeated in the file, 2 empty, 2 refused" in again.out
    assert "line 7: number: " in again.out


def test_what_is_exported_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    run("opt-out", "add", "+16505550100", "--source", 'letter, "3 May"; really')
    run("opt-out", "add", "+16505550101", "--source", "fax")
    before, path = run("opt-out", "list", "--json").json, tmp_path / "out.csv"
    assert "2 numbers written" in run("opt-out", "export", "--output", str(path)).out
    assert run("opt-out", "export").out.splitlines() == path.read_text(encoding="utf-8").splitlines()
    run("opt-out", "remove", "+16505550100", "+16505550101")
    assert run("opt-out", "import", str(path)).code == 0
    assert run("opt-out", "list", "--json").json == before


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        ("+16505550100\n+16505550101\n", ["+16505550100", "+16505550101"]),
        ("+16505550100", ["+16505550100"]),
        ("opted out\n+16505550100\n", ["+16505550100"]),
        ("MSISDN\tWhen\n+16505550100\tnow\n", ["+16505550100"]),
        ('id,"Mobile"\r\n1,"+1 (650) 555-0100"\r\n', ["+16505550100"]),
        ("", []),
        ("phone\n", []),
    ],
    ids=["bare", "one", "a heading of its own", "tabs", "quotes", "empty", "only a heading"],
)
def test_files_are_read_as_providers_write_them(run: Run, tmp_path: Path, content: str, numbers: list[str]) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert run("opt-out", "import", str(path)).code == 0
    assert [one["number"] for one in run("opt-out", "list", "--json").json] == numbers


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (b"a,b\n1,+16505550100\n", (), "column: must be given"),
        (b"a,b\n1,+16505550100\n", ("--column", "c"), "column: is not in the file; there are a, b"),
        (b"phone\n\xff\n", (), "not in UTF-8"),
        (None, (), "file: cannot be read"),
    ],
    ids=["no column", "another column", "not UTF-8", "no file"],
)
def test_a_file_that_cannot_be_read_changes_nothing_and_says_why(
    run: Run, tmp_path: Path, content: bytes | None, words: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    done = run("opt-out", "import", str(path), *words)
    assert done.code == 1
    assert said in done.err
    assert run("opt-out", "list", "--json").json == []


def test_a_column_may_be_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("a,b\n1,+16505550100\n", encoding="utf-8")
    assert run("opt-out", "import", str(path), "--column", "B").code == 0
    assert len(run("opt-out", "list", "--json").json) == 1


def test_what_people_wrote_is_listed_masked_unless_it_is_asked_for(run: Run) -> None:
    with services().engine.begin() as conn:
        texts = [InboundText("SM1", "+16505550100", None, "My code\nis 4711", "twilio", "sms", "+15005550006")]
        inbound_texts.receive(conn, texts, b"test")
    (masked,) = run("inbound", "list", "--json").json
    assert (masked["number"], masked["text"], masked["characters"]) == ("+1650\u2022\u2022\u202200", None, 15)
    (whole,) = run("inbound", "list", "--json", "--reveal").json
    assert (whole["number"], whole["text"]) == ("+16505550100", "My code\nis 4711")
    shown = run("inbound", "list")
    assert "(15 characters)" in shown.out
    assert "4711" not in shown.out
    assert "My code is 4711" in run("inbound", "list", "--reveal", "--keyword", "none", "--since", "2h").out
    assert "nobody wrote anything" in run("inbound", "list", "--keyword", "STOP").out
    assert run("inbound", "list", "--since", "noon").code == 1
    assert json.loads(run("inbound", "list", "--number", "+1 650 555 0101", "--json").out) == []
