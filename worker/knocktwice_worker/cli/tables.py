"""Tables that stay readable at 80 columns and in pipes: no cell is ever cut, and what does not fit comes below."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from knocktwice_worker.cli.output import out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Column

_T = TypeVar("_T")

AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values, one line for each row.")]

Watch = Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")]

#: Seconds between two looks of ``--watch``.
_LOOK_EVERY_S = 2.0
#: Cells up to this width are never broken over lines: ids, names, numbers.
_WHOLE = 40
#: The width of a column's padding and border, and of the last border.
_AROUND, _LAST = 3, 1


def print_table(table: Table, *, as_csv: bool = False, empty: str | None = None) -> None:
    """Print a table.

    Columns that do not fit go into further tables below, each of which begins with the first column again. Only text
    that is wider than all the room goes on in the next line.

    Args:
        as_csv: print it for programs instead.
        empty: said instead of a table without rows; ``None``: the headings stand alone.
    """
    if as_csv:
        _print_csv(table)
        return
    if empty is not None and not table.rows:
        out.print(empty, soft_wrap=True)
        return
    # What is wider goes on in the next line, so it needs no more.
    widths = [_width(out, column) for column in table.columns]
    for columns in _groups([min(width, _WHOLE) for width in widths], out.width):
        out.print(_part(table, columns, widths))


def watching(show: Callable[[], _T], *, on: bool) -> _T:
    """Show something once, or again and again in the same place until Ctrl-C; return what the last look returned."""
    shown = show()
    with contextlib.suppress(KeyboardInterrupt):
        while on:
            pause(_LOOK_EVERY_S)
            out.clear()
            shown = show()
    return shown


def pause(seconds: float) -> None:
    """Wait between two looks."""
    time.sleep(seconds)


def _print_csv(table: Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_plain(column.header) for column in table.columns)
    writer.writerows(zip(*([_plain(cell) for cell in column.cells] for column in table.columns), strict=True))


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain


def _width(console: Console, column: Column) -> int:
    cells = (column.header, *column.cells)
    return max(Measurement.get(console, console.options.update(width=10_000), cell).maximum for cell in cells)


def _groups(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the places of the columns that stand beside each other; the first column is in each group."""
    group, used = [0], widths[0] + _AROUND + _LAST
    for place, width in enumerate(widths[1:], 1):
        if len(group) > 1 and used + width + _AROUND > room:
            yield group
            group, used = [0], widths[0] + _AROUND + _LAST
        group.append(place)
        used += width + _AROUND
    yield group


def _part(table: Table, places: Sequence[int], widths: Sequence[int]) -> Table:
    """Return a table of some columns."""
    part = Table(show_header=table.show_header, box=table.box, pad_edge=table.pad_edge, padding=table.padding)
    for place in places:
        column = table.columns[place]
        whole = widths[place] <= _WHOLE
        part.add_column(column.header, justify=column.justify, no_wrap=whole, overflow="fold")
    cells = [list(table.columns[place].cells) for place in places]
    for number, row in enumerate(table.rows):
        part.add_row(*(own[number] for own in cells), style=row.style, end_section=row.end_section)
    return part
