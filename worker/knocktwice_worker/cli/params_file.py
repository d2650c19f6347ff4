"""``--params people.csv``: values of one person each, for the texts of a blast. All problems are named at once.

The first line names the columns: ``user`` or ``phone`` says who it is, and each other column is a parameter. A file is
read once, row by row, and nothing of it is kept in memory but one row and the first problems.
"""

from __future__ import annotations

import csv
import gzip
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.blasts import own_params, request
from knocktwice_worker.blasts.own_params import Given
from knocktwice_worker.cli import phone_options
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.content.links.short_links import example

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.config import Settings

#: Columns that say who it is.
_WHO = ("user", "phone")
#: Problems that are named; the others are counted.
NAMED = 100
#: People written in one statement.
_PAGE = 2_000
#: Longest id of a user, in characters.
_USER_LIMIT = 200


@dataclass(slots=True)
class ParamsFile:
    """A file that is being read.

    Attributes:
        name: its name, for messages.
        columns: the names of the columns.
        first: the values of the first row that has all columns.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, list[str]]]
    first: Mapping[str, str]


@dataclass(slots=True)
class Gathered:
    """The content of a file.

    Attributes:
        rows: rows of the file.
        sample: the values of the row with the longest ones.
        problems: line → what is wrong there, of the first problems.
        wrong: rows with a problem.
    """

    rows: int = 0
    sample: Mapping[str, str] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    wrong: int = 0

    def refuse(self, line: int, problem: str) -> None:
        """Note a problem."""
        self.wrong += 1
        if len(self.problems) < NAMED:
            self.problems.append((line, problem))


@contextmanager
def opened(path: Path) -> Iterator[ParamsFile]:
    """Open a file; ``-`` is the standard input, and a name that ends in ``.gz`` is unpacked.

    Raises:
        InvalidMessage: it cannot be read, or its first line does not say who it is about.
    """
    try:
        if str(path) == "-":
            yield _begin("the input", sys.stdin)
            return
        read: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
        with read(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield _begin(path.name, file)
    except (OSError, EOFError) as error:
        problem = f"is neither JSON nor a file that can be read: {getattr(error, 'strerror', None) or error}"
        raise InvalidMessage("params", problem) from None


def _begin(name: str, file: IO[str]) -> ParamsFile:
    reader = csv.reader(file)
    columns = tuple(one.strip() for one in next(reader, []))
    if not set(columns) & set(_WHO):
        raise InvalidMessage("params", "the first line must name the columns, and one of them must be user or phone")
    if "" in columns or len(set(columns)) < len(columns):
        raise InvalidMessage("params", "the first line names a column twice, or one has no name")
    rows = _rows(reader)
    early: list[tuple[int, list[str]]] = []
    first: Mapping[str, str] = {one: "" for one in columns if one not in _WHO}
    for line, row in rows:
        early.append((line, row))
        if len(row) == len(columns):
            first = _params(columns, row)
            break
        if len(early) > NAMED:
            break

    def again() -> Iterator[tuple[int, list[str]]]:
        yield from early
        yield from rows

    return ParamsFile(name, columns, again(), first)


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = []
        # Lines that are empty are no rows.
        if row:
            yield getattr(reader, "line_num", 0), row


def _params(columns: tuple[str, ...], row: list[str]) -> dict[str, str]:
    return {name: value for name, value in zip(columns, row, strict=True) if name not in _WHO}


def gather(conn: Connection, file: ParamsFile, blast: Blast, settings: Settings) -> Gathered:
    """Read a file into the transaction, and fill in what the blast says with the values of every row.

    Raises:
        InvalidMessage: the blast cannot be started whatever a row says.
    """
    own_params.gather(conn)
    found, page, longest = Gathered(sample=file.first), [], -1
    check = _checker(conn, file, blast, settings)
    with progress("reading") as bar:
        for line, row in file.rows:
            found.rows += 1
            try:
                one = _given(file.columns, line, row, settings)
                check(one.params)
            except InvalidMessage as error:
                found.refuse(line, f"{error.field}: {error.problem}" if error.field else error.problem)
                continue
            if (length := sum(map(len, one.params.values()))) > longest:
                longest, found.sample = length, one.params
            page.append(one)
            if len(page) == _PAGE:
                own_params.add(conn, page)
                page = []
                bar.update(done=found.rows, total=None, doing="reading")
        own_params.add(conn, page)
    for line, problem in own_params.conflicts(conn, NAMED):
        found.refuse(line, problem)
    found.problems.sort()
    return found


def _checker(
    conn: Connection, file: ParamsFile, blast: Blast, settings: Settings
) -> Callable[[Mapping[str, str]], None]:
    """Return what fills in the blast's texts with the values of a row; equal values are looked at once."""
    links = example(settings.link_address)
    said = request.content_of(conn, request.filled(blast, file.first))
    passed: set[tuple[str, ...]] = set()

    def check(values: Mapping[str, str]) -> None:
        seen = tuple(values.values())
        if seen in passed:
            return
        replace(said, params={**said.params, **values}).check(links)
        if len(passed) < _PAGE:
            passed.add(seen)

    return check


def _given(columns: tuple[str, ...], line: int, row: list[str], settings: Settings) -> Given:
    if len(row) != len(columns):
        raise InvalidMessage("", f"has {len(row)} fields, and the first line has {len(columns)}")
    if any("\0" in one or (not one.isascii() and any("\ud800" <= char <= "\udfff" for char in one)) for one in row):
        raise InvalidMessage("", "is not UTF-8 text")
    who = dict(zip(columns, (one.strip() for one in row), strict=True))
    user, phone = who.get("user", ""), who.get("phone", "")
    if not user and not phone:
        raise InvalidMessage(next(name for name in _WHO if name in columns), "is empty")
    if user and (len(user) > _USER_LIMIT or not user.isprintable()):
        raise InvalidMessage("user", f"must be 1 to {_USER_LIMIT} printable characters")
    number = None if user else phone_options.textable(phone, "phone", settings.phone_rules)
    return Given(line, user or None, number, _params(columns, row))
