"""``knocktwice segment``: look at saved segments, save and delete them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_worker.cli.tables import print_table
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from knocktwice_worker.audience.segments import Segment

app = typer.Typer(name="segment", help="Saved groups of people, as filters.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The segment's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class DatabaseSilent(KnocktwiceError):
    """The database does not answer: start it, or correct the setting."""


@app.command()
def show(
    name: Name,
    count: Annotated[bool, typer.Option("--count", help="Also how many people belong now.")] = False,
    sample: Annotated[int, typer.Option(help="Also the ids of so many of them, drawn at random.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Show a segment's filter, how many people belong to it, and some of them.

    Example: knocktwice segment show vienna --count --sample 5
    """
    from knocktwice_worker.audience import segments

    with _database() as conn:
        segment = segments.get(conn, name)
        told = _told(segment)
        if count:
            told["count"] = segments.count(conn, segment.filter)
        if sample:
            told["sample"] = segments.sample(conn, segment.filter, sample)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    out = _out()
    out.print(name, style="bold")
    if segment.description:
        out.print(segment.description)
    out.print(json.dumps(told["filter"], indent=2, ensure_ascii=False))
    if count:
        out.print(many(int(str(told["count"])), "person", "people"))
    for user in told.get("sample", ()):  # type: ignore[attr-defined]
        out.print(f"  {user}")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the segments.

    Example: knocktwice segment list --json
    """
    from knocktwice_worker.audience import segments

    with _database() as conn:
        found = segments.list_all(conn)
    if as_json:
        print(json.dumps([_told(segment) for segment in found], indent=2))
        return
    table = Table("name", "description", "changed")
    for segment in found:
        table.add_row(segment.name, segment.description, segment.updated_at.astimezone().strftime("%Y-%m-%d %H:%M"))
    print_table(table, empty="no segment is saved; 'knocktwice apply' or 'knocktwice segment put' saves one")


@app.command()
def put(
    name: Name,
    filter: Annotated[str, typer.Option(help="The filter as JSON, or @FILE that holds it.")],  # noqa: A002
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Save a segment, in place of any of that name.

    Example: knocktwice segment put vienna --filter '{"field": "tags.city", "op": "=", "value": "Vienna"}'
    """
    from knocktwice_worker.audience import segments
    from knocktwice_worker.audience.segment_filter import parse_json

    checked = parse_json(_text(filter))
    with _database() as conn:
        changed = segments.put(conn, name, checked, description)
        people = segments.count(conn, checked)
    _out().print(f"{'saved' if changed else 'unchanged'}; {many(people, 'person belongs', 'people belong')} now")


@app.command()
def delete(name: Name) -> None:
    """Delete a segment. Its people stay. Exits 1 if there is none of that name.

    Example: knocktwice segment delete vienna
    """
    from knocktwice_worker.audience import segments

    with _database() as conn:
        segments.delete(conn, name)
    _out().print("deleted")


@contextmanager
def _database() -> Iterator[Connection]:
    from sqlalchemy.exc import OperationalError

    try:
        with services().engine.begin() as conn:
            yield conn
    except OperationalError as error:
        raise DatabaseSilent(
            "the database does not answer; start the stack with 'knocktwice up' or set KNOCKTWICE_DATABASE_URL"
        ) from error


def _told(segment: Segment) -> dict[str, object]:
    from knocktwice_worker.audience.segment_filter import dump

    return {
        "name": segment.name,
        "description": segment.description,
        "filter": dump(segment.filter),
        "updated_at": segment.updated_at.isoformat(),
    }


def _text(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InvalidMessage("filter", f"cannot be read from {value[1:]}") from error


def _out() -> Console:
    # Made when it is needed, so that it writes to the standard output of that moment. Names and ids are not markup.
    return Console(highlight=False, markup=False, soft_wrap=True)
