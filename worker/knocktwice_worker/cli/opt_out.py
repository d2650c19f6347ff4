"""``knocktwice opt-out``: the numbers that are not texted."""

from __future__ import annotations

import csv
import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import OperationalError

from knocktwice_shared.counted import many
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.cli import opt_out_file, phone_options
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

app = typer.Typer(name="opt-out", help="Numbers that asked not to be texted.", no_args_is_help=True)

#: Most refused rows that the screen shows; the JSON has all.
_SHOWN = 20

Numbers = Annotated[
    list[str], typer.Argument(help="With country code, like +16505550100; quote one that holds spaces.")
]


@app.command()
def add(
    numbers: Numbers,
    source: Annotated[str, typer.Option(help="Who says so, kept with it.")] = "operator",
) -> None:
    """Text these numbers no more, from now on and also where an SMS is already due.

    Example: knocktwice opt-out add "+1 650 555 0100" --source "letter of 3 May"
    """
    here = services()
    wanted = phone_options.any_of(numbers, "numbers", here.settings.phone_rules)
    with _transaction(here) as conn:
        added = len(opt_outs.add(conn, wanted, source))
    out.print(f"{added} added, {len(wanted) - added} on the list before")


@app.command()
def remove(
    numbers: Numbers,
    source: Annotated[str, typer.Option(help="Who says so, told by webhooks.")] = "operator",
) -> None:
    """Let these numbers be texted again, because they asked for it. Exits 1 if none was on the list.

    Example: knocktwice opt-out remove "+1 650 555 0100" --source "called on 4 May"
    """
    here = services()
    wanted = phone_options.any_of(numbers, "numbers", here.settings.phone_rules)
    with _transaction(here) as conn:
        removed = len(opt_outs.remove(conn, wanted, secret(here.settings).encode(), source))
    out.print(f"{removed} removed, {len(wanted) - removed} not on the list")
    if not removed:
        raise typer.Exit(1)


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the numbers with who said so and when, as far as they are known: of erased people only a hash is kept.

    Example: knocktwice opt-out list --json
    """
    with _transaction(services()) as conn:
        if as_json:
            print_json([dataclasses.asdict(each) for each in opt_outs.every(conn)])
            return
        for each in opt_outs.every(conn):
            out.print(f"{each.number:16} {clock(each.since)}  {each.source}", markup=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV; - reads standard input.", allow_dash=True)],
    column: Annotated[
        str | None, typer.Option(help="The column with the numbers.", show_default="number, phone, … or the only one")
    ] = None,
    source: Annotated[str, typer.Option(help="Who says so, for rows without a column source.")] = "import",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the numbers of a file on the list. A number that is on it stays as it is, so a repeat changes nothing.

    The columns source and since are kept, if there are any; export writes them. Every row is accounted for. Rows whose
    number cannot be read are named and left out, and the exit code is 1 then. Webhooks are not told.

    Example: knocktwice opt-out import old-provider.csv --source "list of our old provider" --dry-run
    """
    here = services()
    report = opt_out_file.Report(dry_run=dry_run)
    lines = opt_out_file.lines(file)
    with opt_out_file.rows(file, column) as read, progress("reading", lines) as bar:
        for page in opt_out_file.pages(read, source, report, here.settings.phone_rules.of_anyone):
            with _transaction(here) as conn:
                report.took(page, _bring(conn, page, here, dry_run=dry_run))
            bar.update(done=report.rows, total=lines, doing="reading")
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        _print(report)
    if report.refused:
        raise typer.Exit(1)


def _bring(conn: Connection, page: list[opt_outs.OptOut], here: Services, *, dry_run: bool) -> set[str]:
    """Return the numbers that were not on the list."""
    numbers = [one.number for one in page]
    own = secret(here.settings).encode()
    if dry_run:
        return set(numbers) - opt_outs.find(conn, numbers, own).keys()
    # Numbers of erased people are on it as hashes; with their number known again they come back by themselves.
    opt_outs.restore(conn, numbers, own)
    return opt_outs.bring(conn, page)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="The file to write.", show_default="standard output")] = None,
) -> None:
    """Write the list as CSV: number, source, since. Numbers of erased people are not in it: only hashes are kept.

    Example: knocktwice opt-out export --output opt-outs.csv
    """
    if output is None:
        _write(csv.writer(sys.stdout))
        return
    with output.open("w", newline="", encoding="utf-8") as file:
        count = _write(csv.writer(file))
    out.print(f"{many(count, 'number')} written")


def _write(writer: opt_out_file.Writer) -> int:
    count = 0
    writer.writerow(["number", "source", "since"])
    with _transaction(services()) as conn, progress("writing") as bar:
        for each in opt_outs.every(conn):
            writer.writerow([each.number, each.source, each.since.isoformat() if each.since else ""])
            count += 1
            bar.advance()
    return count


def _print(report: opt_out_file.Report) -> None:
    would = "would be added" if report.dry_run else "added"
    out.print(
        f"{many(report.rows, 'row')}: {report.added} {would}, {report.present} on the list before, "
        f"{report.repeated} repeated in the file, {report.empty} empty, {len(report.refused)} refused",
        soft_wrap=True,
    )
    for refused in report.refused[:_SHOWN]:
        out.print(f"line {refused.line}: {refused.problem}", markup=False, soft_wrap=True)
    if len(report.refused) > _SHOWN:
        out.print(f"and {len(report.refused) - _SHOWN} more; --json names them all")


@contextmanager
def _transaction(here: Services) -> Iterator[Connection]:
    try:
        with here.engine.begin() as conn:
            yield conn
    except OperationalError:
        fail("the database does not answer; start the stack with 'knocktwice up' or set KNOCKTWICE_DATABASE_URL")
