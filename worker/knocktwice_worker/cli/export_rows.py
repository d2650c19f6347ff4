"""The rows of another product's CSV export, and the content of each in our words."""

from __future__ import annotations

import csv
import gzip
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from knocktwice_worker.audience.aliases import Alias

Json = dict[str, Any]

#: Longest field, in characters.
_FIELD_LIMIT = 1_048_576


_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2})?)(?:\.\d+)?(?: ?UTC|Z|\+00:?00)?", re.ASCII)


class Unfit(ValueError):
    """A row says nothing that can be taken; the text says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: the line on which it ends, and its fields by column; ``None``: it cannot be read."""

    line: int
    fields: Mapping[str, str] | None
    problem: str = ""


@dataclass(slots=True)
class Said:
    """The content of a row.

    Attributes:
        user: the person.
        at: since when it counts.
        about: the device, or the person whose number it is; two rows about the same are one thing here.
        number: the number as it is written there; empty for a device.
        changes: of the audience, as our own routes take them.
        aliases: the other product's ids of it.
        hwid: the name that the app gives its installation; empty: none.
        problem: why nothing but the person is taken; empty: all is.
    """

    user: str
    at: datetime
    about: str
    number: str = ""
    changes: list[Json] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    hwid: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """A product's export.

    Attributes:
        called: the product, as errors name it.
        needed: the columns without which a file is none; of names that are separated by ``|`` one is enough.
        name: returns a column's name as the reader knows it.
        read: returns what a row says; the time is when a row counts from that does not say it. Raises :class:`Unfit`.
        user, number: the columns of the person and of the number, as problems name them.
    """

    called: str
    needed: tuple[str, ...]
    name: Callable[[str], str]
    read: Callable[[Row, datetime], Said]
    user: str
    number: str


@contextmanager
def rows(path: Path, export: Export) -> Iterator[Iterator[Row]]:
    """Yield the rows of a file, which may be packed with gzip. Nothing of it is kept.

    Raises:
        InvalidMessage: the file cannot be read, or is no such export.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        # Bytes that are no UTF-8 spoil their own row only.
        read: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
        with read(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield _rows(file, export)
    except (OSError, EOFError) as error:
        raise InvalidMessage("file", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _rows(file: IO[str], export: Export) -> Iterator[Row]:
    first = file.readline()
    between = ";" if first.count(";") > first.count(",") else ","
    columns = [export.name(name) for name in next(csv.reader([first], delimiter=between), [])]
    reader = csv.reader(file, delimiter=between)
    for names in export.needed:
        if not set(names.split("|")) & set(columns):
            lacking = names.replace("|", " or ")
            raise InvalidMessage("file", f"is no export of {export.called}'s users: it has no column {lacking}")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(reader.line_num + 1, None, f"cannot be read as CSV: {error}")
            continue
        yield _row(reader.line_num + 1, columns, row)


def _row(line: int, columns: Sequence[str], row: Sequence[str]) -> Row:
    if len(row) != len(columns):
        return Row(line, None, f"has {len(row)} fields, and the first line has {len(columns)}")
    if any("\0" in one or (not one.isascii() and any("\ud800" <= char <= "\udfff" for char in one)) for one in row):
        return Row(line, None, "is not UTF-8 text")
    return Row(line, dict(zip(columns, (one.strip() for one in row), strict=True)))


def moment(text: str, column: str) -> datetime:
    """Return the time that a column says: in seconds since 1970, or like ``2026-11-21 09:30:00``, which is UTC.

    Raises:
        Unfit: it is neither.
    """
    if re.fullmatch(r"[0-9]{9,10}", text, re.ASCII):
        return datetime.fromtimestamp(int(text), UTC)
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        return datetime.fromisoformat(f"{found[1]}T{found[2]}").replace(tzinfo=UTC)
    except ValueError:
        raise Unfit(f"{column}: is no time like 2026-11-21 09:30:00") from None
