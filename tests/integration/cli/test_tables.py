"""Tables are whole at 80 columns and in pipes, and programs get them as CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from rich.table import Table

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.cli import output, tables
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

NUMBER = "+16505550100"
#: Longer than any terminal is wide.
ADDRESS = "https://shop.example/" + "hooks/" * 30


@pytest.fixture
def narrow(run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandOutput]:
    """Runs a command at 80 columns, as every pipe has."""
    monkeypatch.setattr(output.out, "width", 80)
    return run


def _lines(done: CommandOutput) -> list[str]:
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "…" not in done.out
    assert [line for line in lines if len(line) > 80] == []
    return lines


def test_stats_have_every_heading_at_80_columns(narrow: Callable[..., CommandOutput]) -> None:
    told = "\n".join(_lines(narrow("stats")))
    for heading in ("template", "accepted", "sms delivered", "suppressed", "per reached", "sms only"):
        assert f" {heading} " in told, heading


def test_an_endpoints_id_is_whole_however_long_its_address_is(
    narrow: Callable[..., CommandOutput], here: Services
) -> None:
    with here.engine.begin() as conn:
        ids = [endpoints.add(conn, f"{ADDRESS}{n}", private=True) for n in range(3)]
    told = "\n".join(_lines(narrow("webhooks", "list")))
    # Once with the address, and once with what did not fit beside it.
    assert [told.count(id_) for id_ in ids] == [2, 2, 2]
    assert all(f" {heading} " in told for heading in ("id", "url", "events", "waiting", "state"))


def test_the_steps_of_a_notification_are_whole(narrow: Callable[..., CommandOutput], here: Services) -> None:
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}}
    wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 600}]
    here.pushes.send(parse_batch({**wire, "recipients": [{"id": id_, "registrations": ["phone-1"], "phone": NUMBER}]}))
    receipts.record(here.engine, [ReceiptEvent(UUID(id_), Receipt.CLICKED, datetime.now(UTC), "phone-1")])
    assert "reached_in_time" in "\n".join(_lines(narrow("status", id_)))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("blast", "list"), "no blast was started yet"),
        (("segment", "list"), "no segment is saved"),
        (("template", "list"), "no template is stored"),
        (("webhooks", "list"), "nobody is told"),
        (("receipts", "health"), "no push has been counted yet"),
    ],
)
def test_an_empty_list_says_so(run: Callable[..., CommandOutput], command: tuple[str, ...], said: str) -> None:
    assert said in run(*command).out


def test_csv_has_a_line_for_each_row_and_no_markup(
    run: Callable[..., CommandOutput], here: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    with here.engine.begin() as conn:
        id_ = endpoints.add(conn, ADDRESS, private=True)
    heading, row = csv.reader(io.StringIO(run("webhooks", "list", "--csv").out))
    assert heading == ["id", "url", "events", "project", "waiting", "state"]
    assert row == [id_, ADDRESS, "all", "", "0", "well"]
    heading, *rows = csv.reader(io.StringIO(run("stats", "--csv").out))
    assert heading[:2] == ["template", "accepted"]
    assert [row[0] for row in rows] == ["all"]
    table = Table("a", "b")
    table.add_row("[bold]x[/], y", None)
    capsys.readouterr()
    tables.print_table(table, as_csv=True)
    assert capsys.readouterr().out == 'a,b\n"x, y",\n'


@pytest.mark.parametrize("width", [30, 40, 80, 100, 200])
def test_no_cell_is_lost_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.out, "width", width)
    table = Table("id", *(f"column {n}" for n in range(12)))
    for row in range(3):
        table.add_row(f"id-{row}", *(f"value-{row}-{n}" for n in range(12)))
    capsys.readouterr()
    tables.print_table(table)
    told = capsys.readouterr().out
    assert [n for n in range(12) for row in range(3) if f"value-{row}-{n} " not in told] == []
    assert max(map(len, told.splitlines())) <= width


def test_watching_shows_it_again_until_it_is_interrupted(
    run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([None, None])

    def pause(_: float) -> None:
        if next(turns, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr(tables, "pause", pause)
    done = run("stats", "--watch")
    assert done.code == 0
    assert done.out.count("accepted since") == 3
