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

from knocktwice_shared.channels import CONTENTS
from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import channel_opt_outs, opt_outs
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

Channel = Annotated[
    str | None,
    typer.Option(help=f"The only channel that it concerns: {' or '.join(CONTENTS)}.", show_default="all texts"),
]


@app.command()
def add(
    numbers: Numbers,
    source: Annotated[str, typer.Option(help="Who says so, kept with it.")] = "operator",
    channel: Channel = None,
) -> None:
    """Text these numbers no more, from now on and also where an SMS is already due.

    Example: knocktwice opt-out add "+1 650 555 0100" --source "letter of 3 May"
    """
    here, said = services(), _said(source)
    wanted, only = phone_options.any_of(numbers, "numbers", here.settings.phone_rules), _known(channel)
    with _transaction(here) as conn:
        new = channel_opt_outs.add(conn, wanted, only, said) if only else opt_outs.add(conn, wanted, said)
        added = len(new)
    out.print(f"{added} added, {len(wanted) - added} on the list before")


@app.command()
def remove(
    numbers: Numbers,
    source: Annotated[str, typer.Option(help="Who says so, told by webhooks.")] = "operator",
    channel: Channel = None,
) -> None:
    """Let these numbers be texted again, because they asked for it. Exits 1 if none was on the list.

    With --channel an opt-out of all texts stays.

    Example: knocktwice opt-out remove "+1 650 555 0100" --source "called on 4 May"
    """
    here, said = services(), _said(source)
    wanted, only = phone_options.any_of(numbers, "numbers", here.settings.phone_rules), _known(channel)
    with _transaction(here) as conn:
        if only:
            removed = len(channel_opt_outs.remove(conn, wanted, only, said))
        else:
            removed = len(opt_outs.remove(conn, wanted, secret(here.settings).encode(), said))
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
        nobody = True
        for each in opt_outs.every(conn):
            nobody = False
            only = f"  only {', '.join(each.channels)}" if each.channels is not None else ""
            out.print(f"{each.number:16} {clock(each.since)}  {each.source}{only}", markup=False, soft_wrap=True)
        if nobody:
            # Apart from the numbers, which may go on in a pipe.
            typer.echo("nobody has opted out", err=True)


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

    The columns source, since and channels are kept, if there are any; export writes them. Without channels a row
    concerns all texts. Every row is accounted for. Rows whose
    number cannot be read are named and left out, and the exit code is 1 then. Webhooks are not told.

    Example: knocktwice opt-out import old-provider.csv --source "list of our old provider" --dry-run
    """
    here, source = services(), _said(source)
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
        listed = opt_outs.find(conn, numbers, own)
        return {one.number for one in page if not _says(listed.get(one.number), one)}
    # Numbers of erased people are on it as hashes; with their number known again they come back by themselves.
    opt_outs.restore(conn, numbers, own)
    added = opt_outs.bring(conn, [one for one in page if one.channels is None])
    of_channels = [(o.number, channel, o.source, o.since) for o in page for channel in o.channels or ()]
    return added | channel_opt_outs.bring(conn, of_channels)


def _says(listed: opt_outs.OptOut | None, one: opt_outs.OptOut) -> bool:
    """Whether the list says the same already, or more."""
    if listed is None or listed.channels is None:
        return listed is not None
    return one.channels is not None and set(one.channels) <= set(listed.channels)


def _said(source: str) -> str:
    if not source.strip() or len(source) > opt_out_file.SOURCE_LIMIT or not source.isprintable():
        raise InvalidMessage("source", f"must be text of 1 to {opt_out_file.SOURCE_LIMIT} printable characters")
    return source


def _known(channel: str | None) -> str | None:
    if channel is not None and channel not in CONTENTS:
        raise InvalidMessage("channel", f"must be one of {', '.join(CONTENTS)}, or left out for all texts")
    return channel


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="The file to write.", show_default="standard output")] = None,
) -> None:
    """Write the list as CSV: number, source, since, channels (none: all texts). Numbers of erased people are not in it: only hashes are kept.

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
    writer.writerow(["number", "source", "since", "channels"])
    with _transaction(services()) as conn, progress("writing") as bar:
        for each in opt_outs.every(conn):
            since = each.since.isoformat() if each.since else ""
            writer.writerow([each.number, each.source, since, " ".join(each.channels or ())])
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
