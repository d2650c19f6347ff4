"""``knocktwice opt-out``: the numbers that are not texted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import OperationalError

from knocktwice_worker.audience import opt_outs
from knocktwice_worker.cli import phone_options
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

app = typer.Typer(name="opt-out", help="Numbers that asked not to be texted.", no_args_is_help=True)

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
        added = opt_outs.add(conn, wanted, source)
    out.print(f"{added} added, {len(wanted) - added} on the list before")


@app.command()
def remove(numbers: Numbers) -> None:
    """Let these numbers be texted again, because they asked for it. Exits 1 if none was on the list."""
    here = services()
    wanted = phone_options.any_of(numbers, "numbers", here.settings.phone_rules)
    with _transaction(here) as conn:
        removed = opt_outs.remove(conn, wanted, secret(here.settings).encode())
    out.print(f"{removed} removed, {len(wanted) - removed} not on the list")
    if not removed:
        raise typer.Exit(1)


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the numbers with who said so and when, as far as they are known: of erased people only a hash is kept."""
    with _transaction(services()) as conn:
        if as_json:
            print_json([{"number": n, "source": source, "since": at} for n, source, at in opt_outs.every(conn)])
            return
        for number, source, at in opt_outs.every(conn):
            out.print(f"{number:16} {clock(at)}  {source}", markup=False, soft_wrap=True)


@contextmanager
def _transaction(here: Services) -> Iterator[Connection]:
    try:
        with here.engine.begin() as conn:
            yield conn
    except OperationalError:
        fail("the database does not answer; start the stack with 'knocktwice up' or set KNOCKTWICE_DATABASE_URL")
