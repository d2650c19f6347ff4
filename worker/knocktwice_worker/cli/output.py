"""The output of the command line: text for people, JSON for programs, and each failure in one line."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _project(name: str | None) -> str | None:
    try:
        return None if name is None else checks.side(name)
    except InvalidMessage as error:
        raise typer.BadParameter(str(error).partition(": ")[2]) from None


#: The project whose things a command shows.
OfProject = Annotated[
    str | None,
    typer.Option("--project", help="Only of this project; shop~test or ~test: its tests.", callback=_project),
]


def log_warnings() -> None:
    """Let the rooms' log lines that matter to whoever called the command go to standard error."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def reading_all(here: Services) -> Iterator[list[Connection]]:
    """Connect to the databases of all cells, or say which does not answer; without cells to the only one."""
    from sqlalchemy.exc import OperationalError

    with ExitStack() as open_:
        if here.neighbours is None:
            yield [open_.enter_context(reading(here))]
            return
        found = []
        for cell in here.neighbours.cells.all:
            try:
                found.append(open_.enter_context(here.neighbours.engine(cell).connect()))
            except OperationalError:
                fail(f"the database of cell {cell.name} does not answer, and without it this would not be the whole")
        yield found


def reading(here: Services) -> Connection:
    """Connect to the database, or say that it does not answer."""
    from sqlalchemy.exc import OperationalError

    try:
        return here.engine.connect()
    except OperationalError:
        fail("the database does not answer; start the stack with 'knocktwice up' or set KNOCKTWICE_DATABASE_URL")


def fail(message: str) -> NoReturn:
    """Say what is wrong and exit with 1."""
    complain(message)
    raise typer.Exit(1)


def complain(message: str) -> None:
    """Say what is wrong as it is: brackets in it are no markup, and a line that a script reads is not broken."""
    err.print("[red]error:[/]", escape(message), soft_wrap=True)


def clock(at: datetime | None) -> str:
    """Return a time as the screen shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def print_json(value: object) -> None:
    """Print for programs."""
    print(json.dumps(value, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v), indent=2))
