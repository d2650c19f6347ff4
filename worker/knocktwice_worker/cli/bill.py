"""``knocktwice bill``: a provider's list of messages against our rows."""

from __future__ import annotations

import csv
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.output import AsJson, fail, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_worker.evidence.bill import Check

#: Findings that are shown to people; programs get all.
_SHOWN = 50


def bill(
    file: Annotated[str, typer.Argument(help="The list as CSV, with a heading; - is the standard input.")],
    provider: Annotated[str | None, typer.Option(help="Whose list; needed to find what it lacks.")] = None,
    since: Annotated[str | None, typer.Option(help="The list begins then, like 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="And ends before then.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Compare a provider's list or invoice with what we know of its messages. Exits 1 if they do not agree.

    Example: knocktwice bill november.csv --provider acme --since 2026-11-01 --until 2026-12-01
    """
    from knocktwice_worker.evidence import bill as evidence

    if len({provider is None, since is None, until is None}) > 1:
        raise InvalidMessage("provider", "goes with --since and --until: all three or none")
    try:
        opened = nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8-sig", newline="")  # noqa: SIM115
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    with opened as lines, reading(services()) as conn:
        try:
            found, seen = evidence.check(conn, lines)
        except UnicodeDecodeError:
            fail(f"{file}: is not text in UTF-8; save it as CSV in UTF-8")
        except csv.Error as error:
            fail(f"{file}: cannot be read as CSV: {error}")
        if provider is not None:
            found.findings += evidence.missing(conn, provider, _day("since", since), _day("until", until), seen)
    if as_json:
        print_json(found.as_json())
    else:
        table = Table("fault", "line", "id", "billed", "ours")
        shown = found.findings if as_csv else found.findings[:_SHOWN]
        for one in shown:
            table.add_row(one.fault, str(one.line or ""), one.id, one.billed, one.ours)
        if shown or as_csv:
            print_table(table, as_csv=as_csv)
        if not as_csv:
            _say(found)
    if found.findings:
        raise typer.Exit(1)


def _say(found: Check) -> None:
    if len(found.findings) > _SHOWN:
        out.print(f"and {len(found.findings) - _SHOWN} more; --csv or --json has all")
    for currency in sorted(found.billed.keys() | found.ours.keys()):
        billed, ours = found.billed[currency], found.ours[currency]
        out.print(f"{currency or 'no currency'}: billed {billed}, reported for the same messages {ours}", markup=False)
    out.print(f"{found.agreeing} of {found.lines} lines agree")


def _day(name: str, given: str | None) -> datetime:
    try:
        found = datetime.fromisoformat(given or "")
    except ValueError:
        raise InvalidMessage(name, "must be a day like 2026-11-01, or a time") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
