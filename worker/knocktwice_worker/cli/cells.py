"""``knocktwice cells``: the installations that share an application's people."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_shared import cells as naming
from knocktwice_worker.cells import agreement
from knocktwice_worker.cli import phone_options
from knocktwice_worker.cli.output import AsJson, fail, out, print_json
from knocktwice_worker.cli.tables import print_table
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_shared.cells import Cell
    from knocktwice_worker.cells.neighbours import Neighbours
    from knocktwice_worker.services import Services

app = typer.Typer(help="The installations that share an application's people.", no_args_is_help=True)

_AWAY = text("SELECT extract(epoch FROM knocktwice_now() - seen_until) FROM followers WHERE name = :name")


@app.command()
def check(as_json: AsJson = False) -> None:
    """Show of each cell whether it answers, goes by the same file, and has told the others its opt-outs.

    Exits 1 if something is wrong.

    Example: knocktwice cells check --json
    """
    here = services()
    neighbours = _neighbours(here)
    found = [_looked_at(here, neighbours, cell) for cell in neighbours.cells.all]
    if as_json:
        print_json({"cells": found})
    else:
        table = Table("cell", "slots", "broker", "database", "file", "told others")
        for one in found:
            told = "-" if one["untold_s"] is None else f"{one['untold_s']} s ago"
            table.add_row(one["name"], str(one["slots"]), one["broker"], one["database"], one["file"], told)
        print_table(table)
    if any(one["broker"] != "ok" or one["database"] != "ok" or one["file"] != "in force" for one in found):
        raise typer.Exit(1)


@app.command()
def adopt() -> None:
    """Put this file of cells in force in all cells, once all workers and producers have it. Repeats do no harm.

    Until then no texts go out: cells with different files would count a number twice. All cells must answer.

    Example: knocktwice cells adopt
    """
    from redis.exceptions import RedisError

    here = services()
    try:
        agreement.adopt(_neighbours(here), here.agreement)
    except RedisError as error:
        fail(
            f"a cell's broker does not answer ({type(error).__name__}); texts wait until this was repeated with success"
        )
    out.print("in force in all cells")


@app.command()
def where(
    user: Annotated[str | None, typer.Option(help="A user's id.")] = None,
    phone: Annotated[
        str | None, typer.Option(help="A number: who counts its texts, and has those without a user.")
    ] = None,
    notification: Annotated[str | None, typer.Option(help="A notification's id.")] = None,
) -> None:
    """Print the name of the cell of a person, a number or a notification.

    Example: knocktwice cells where --user ada
    """
    here = services()
    cells = _neighbours(here).cells
    if user is not None:
        found: Cell | None = cells.of(naming.person(user, None, ()))
    elif phone is not None:
        number = phone_options.textable(phone, "phone", here.settings.phone_rules.of_anyone)
        found = cells.of(naming.number(number))
    elif notification is not None:
        found = cells.of_id(UUID(notification))
    else:
        raise typer.BadParameter("give one of --user, --phone and --notification")
    print(found.name if found else "any")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(command: Annotated[list[str], typer.Argument(help="A command of knocktwice, without that word.")]) -> None:
    """Run a command in each cell, one after the other. Exits with the first code that is not 0, after all have run.

    \b
    knocktwice cells run migrate
    knocktwice cells run apply shop.yaml
    knocktwice cells run blast start regulars --template sale --key summer-sale
    """
    neighbours, code = _neighbours(services()), 0
    for cell in neighbours.cells.all:
        print(f"== {cell.name}", flush=True)
        named = {"KNOCKTWICE_CELL": cell.name, "KNOCKTWICE_BROKER_URL": cell.broker}
        if cell.database is None:
            fail(f"the file of cells names no database of cell {cell.name}")
        environment = {**os.environ, **named, "KNOCKTWICE_DATABASE_URL": cell.database}
        for name in ("KNOCKTWICE_BROKER_URL_FILE", "KNOCKTWICE_DATABASE_URL_FILE"):
            environment.pop(name, None)
        done = subprocess.run([sys.executable, "-m", "knocktwice_worker.cli", *command], env=environment, check=False)
        code = code or done.returncode
    raise typer.Exit(code)


def _neighbours(here: Services) -> Neighbours:
    if here.neighbours is None:
        fail("this installation is alone; KNOCKTWICE_CELLS_FILE and KNOCKTWICE_CELL make it a cell")
    return here.neighbours


def _looked_at(here: Services, neighbours: Neighbours, cell: Cell) -> dict[str, Any]:
    from redis.exceptions import RedisError

    broker, database, file, untold = "ok", "ok", "in force", None
    try:
        found = neighbours.redis(cell).get(agreement.AGREEMENT)
        file = "none" if found is None else file if found == here.agreement.encode() else "another"
    except RedisError:
        broker, file = "away", "unknown"
    try:
        with neighbours.engine(cell).connect() as conn:
            others = [other for other in neighbours.cells.all if other is not cell]
            ages = [conn.execute(_AWAY, {"name": f"cell {other.name}"}).scalar() for other in others]
        untold = None if not ages or None in ages else round(max(float(age) for age in ages if age is not None))
    except SQLAlchemyError:
        database = "away"
    slots = sum(owner == cell.number for owner in neighbours.cells.slots)
    return {"name": cell.name, "number": cell.number, "slots": slots, "broker": broker, "database": database} | {
        "file": file,
        "untold_s": untold,
    }
