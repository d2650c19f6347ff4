"""Files of opt-outs: CSV as providers and spreadsheets write it, with an account of every row."""

from __future__ import annotations

import csv
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from knocktwice_shared.channels import CONTENTS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience.opt_outs import OptOut
from knocktwice_worker.cli import phone_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from knocktwice_worker.notation.phone_numbers import Rules

#: Rows that are written in one transaction.
_PAGE = 5_000
#: Names of the column with the numbers, as providers call it.
_NUMBER = ("number", "phone", "phone number", "phone_number", "phonenumber", "mobile", "msisdn", "tel", "to", "from")
_SOURCE = ("source",)
_SINCE = ("since", "created_at", "date", "opted_out_at")
_CHANNELS = ("channels", "channel")
#: Most characters of who says so.
SOURCE_LIMIT = 200


class Writer(Protocol):
    """A writer of the rows of a CSV file."""

    def writerow(self, row: Iterable[Any], /) -> Any:
        """Write a row."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was left out.

    Attributes:
        line: its line in the file, counted from 1.
        problem: what is wrong with it; the number is not quoted.
    """

    line: int
    problem: str


@dataclass(slots=True)
class Report:
    """The outcomes of the rows of a file: each is counted once.

    Attributes:
        added: numbers that were not on the list.
        present: numbers that were on it before.
        repeated: numbers that stand further above in the file, too.
        empty: rows without a number.
    """

    dry_run: bool
    rows: int = 0
    added: int = 0
    present: int = 0
    repeated: int = 0
    empty: int = 0
    refused: list[Refused] = field(default_factory=list)

    def took(self, page: Sequence[OptOut], added: set[str]) -> None:
        """Count a page of rows, of which these numbers were not on the list."""
        self.added += len(added)
        self.present += len(page) - len(added)


class Row(NamedTuple):
    """A row of a file: its line, and the values as they stand there."""

    line: int
    number: str
    source: str = ""
    since: str = ""
    channels: str = ""


def lines(path: Path) -> int | None:
    """Return about how many rows a file has; ``None`` for what can be read only once, or not at all."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return None


@contextmanager
def rows(path: Path, column: str | None) -> Iterator[Iterator[Row]]:
    """Yield the rows of a file below its heading, if it has one.

    Args:
        path: the file; ``-`` is standard input.
        column: the column with the numbers; ``None``: the one that is called so, or the only one.

    Raises:
        InvalidMessage: the file cannot be read, or it does not say which column has the numbers.
    """
    try:
        if str(path) == "-":
            yield _rows(sys.stdin, column)
            return
        # With or without a byte order mark, as spreadsheets write it.
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield _rows(file, column)
    except OSError as error:
        raise InvalidMessage("file", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidMessage("file", "is not in UTF-8; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InvalidMessage("file", f"is no CSV: {error}") from None


def _rows(file: Iterable[str], column: str | None) -> Iterator[Row]:
    lines = iter(file)
    first = next(lines, "").lstrip("\ufeff")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(_chained(first, lines), delimiter=delimiter)
    heading = next(reader, [])
    names = [name.strip().casefold() for name in heading]
    place = _place(names, column)
    if place is None:
        # There is no heading, so the first line is a number like all others.
        yield Row(1, heading[0] if heading else "")
        place, source, since, channels = 0, None, None, None
    else:
        source, since, channels = (_first(names, known) for known in (_SOURCE, _SINCE, _CHANNELS))
    for row in reader:
        yield Row(reader.line_num, *(_cell(row, column) for column in (place, source, since, channels)))


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _place(names: Sequence[str], column: str | None) -> int | None:
    """Return the place of the column with the numbers; ``None``: the file has one column and no heading."""
    if column is not None:
        if column.strip().casefold() not in names:
            raise InvalidMessage("column", f"is not in the file; there are {', '.join(names) or 'none'}")
        return names.index(column.strip().casefold())
    found = _first(names, _NUMBER)
    if found is not None:
        return found
    if len(names) <= 1:
        return None if not names or any(char.isdigit() for char in names[0]) else 0
    raise InvalidMessage("column", "must be given: the file does not say in its first line which one has the numbers")


def _first(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _cell(row: Sequence[str], place: int | None) -> str:
    return row[place].strip() if place is not None and place < len(row) else ""


def pages(read: Iterable[Row], source: str, report: Report, rules: Rules) -> Iterator[list[OptOut]]:
    """Yield the numbers of a file in pages, each number once, and count what is not among them.

    Args:
        source: who says so where a row does not tell.
        rules: how numbers are read.
    """
    seen: set[tuple[str, tuple[str, ...] | None]] = set()
    page: list[OptOut] = []
    for row in read:
        report.rows += 1
        if not row.number:
            report.empty += 1
            continue
        try:
            one = _opt_out(row, source, rules)
        except InvalidMessage as error:
            report.refused.append(Refused(row.line, f"{error.field}: {error.problem}"))
            continue
        if (one.number, one.channels) in seen:
            report.repeated += 1
            continue
        seen.add((one.number, one.channels))
        page.append(one)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


def _opt_out(row: Row, source: str, rules: Rules) -> OptOut:
    number = phone_options.textable(row.number, "number", rules)
    said = row.source or source
    if len(said) > SOURCE_LIMIT or not said.isprintable():
        raise InvalidMessage("source", f"must be at most {SOURCE_LIMIT} printable characters")
    channels = tuple(sorted(set(row.channels.casefold().replace(",", " ").split()))) or None
    if channels is not None and not CONTENTS.keys() >= set(channels):
        raise InvalidMessage("channels", f"may be {', '.join(CONTENTS)}, or empty for all texts")
    if not row.since:
        return OptOut(number, said, None, channels)
    try:
        return OptOut(number, said, datetime.fromisoformat(row.since).astimezone(), channels)
    except (ValueError, OverflowError):
        raise InvalidMessage("since", "must be a time like 2026-11-21T09:30:00+01:00") from None
