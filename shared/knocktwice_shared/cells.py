"""Cells: ordinary installations that share an application's people, as the operators' file lists them.

A person belongs to one cell: a hash of the person gives one of 1,024 slots, and the file says whose each slot is. The
same slots say which cell counts the texts to a number. A notification's id carries the number of its cell, so that
whatever comes later with the id (a receipt, a cancellation) finds the cell without asking.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.ids import created_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The variable that names the file.
VARIABLE = "KNOCKTWICE_CELLS_FILE"
#: Slots of people. More of them than there will ever be cells, so that a cell can give away a part of its people.
SLOTS = 1024
#: A cell's number stands in 8 of the 12 random bits that follow a UUIDv7's version.
_AT, _MOST = 64, 0xFF
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


@dataclass(frozen=True, slots=True)
class Cell:
    """An installation.

    Attributes:
        name: what operators call it.
        number: 0 to 255; it stands in the ids of the cell's notifications, so no other cell ever gets it.
        broker: the URL of its Redis or Valkey.
        database: the URL of its PostgreSQL; ``None``: it is not said, because applications need it not.
    """

    name: str
    number: int
    broker: str = field(repr=False)
    database: str | None = field(repr=False)

    def marked(self, id_: UUID) -> UUID:
        """Return a UUIDv7 that carries this cell's number."""
        return UUID(int=id_.int & ~(_MOST << _AT) | self.number << _AT)


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells, and whose each slot is.

    Attributes:
        all: the cells, in the order of the file.
        slots: slot → the number of its cell.
        since: ids that were made before carry no cell.
    """

    all: tuple[Cell, ...]
    slots: tuple[int, ...]
    since: datetime

    def of(self, name: str) -> Cell:
        """Return the cell of a person or a number.

        Args:
            name: what the slot is a hash of.
        """
        return self._numbered[self.slots[slot_of(name)]]

    def of_id(self, id_: UUID) -> Cell | None:
        """Return the cell whose number an id carries; ``None``: it carries none, so any cell may have it."""
        if id_.version != 7 or created_at(id_) < self.since:
            return None
        return self._numbered.get(id_.int >> _AT & _MOST)

    def named(self, name: str) -> Cell:
        """Return the cell of this name.

        Raises:
            KnocktwiceError: there is none.
        """
        for cell in self.all:
            if cell.name == name:
                return cell
        raise KnocktwiceError(
            f"there is no cell {name!r} in the file of cells, only {', '.join(c.name for c in self.all)}"
        )

    def agreement(self, secret: bytes, zone: str) -> str:
        """Return a digest of all that cells must agree about before they may count texts for each other.

        Args:
            secret: with which numbers are hashed.
            zone: of the calendar day.
        """
        said = f"{self.slots} {[(c.number, c.name) for c in self.all]} {zone}"
        return hmac.new(secret, said.encode(), hashlib.sha256).hexdigest()[:32]

    @property
    def _numbered(self) -> Mapping[int, Cell]:
        return {cell.number: cell for cell in self.all}


def slot_of(name: str) -> int:
    """Return the slot of a person or a number; the same for ever."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) % SLOTS


def person(user: str | None, phone: str | None, registrations: Sequence[str]) -> str:
    """Return the name by which a recipient is placed: the user's id, else the number, else the first registration."""
    if user is not None:
        return f"user {user}"
    if phone is not None:
        return number(phone)
    return f"registration {registrations[0]}" if registrations else ""


def number(phone: str) -> str:
    """Return the name by which a number is placed."""
    return f"number {phone}"


def file(given: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the path of the file of cells: the one that is given, or ``KNOCKTWICE_CELLS_FILE``."""
    path = given or os.environ.get(VARIABLE)
    return Path(path) if path else None


def read(path: Path) -> Cells:
    """Read a file of cells.

    Raises:
        KnocktwiceError: it cannot be read, or is wrong; the message names the place and no password.
    """
    try:
        told = tomllib.loads(path.read_text())
    except OSError as error:
        raise KnocktwiceError(f"{VARIABLE}: cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # The parser's own words may quote a line with a password.
        raise KnocktwiceError(f"{VARIABLE}: {path} is no TOML") from None
    try:
        return _cells(told)
    except ValueError as error:
        raise KnocktwiceError(f"{VARIABLE}: {path}: {error}") from None


def _cells(told: Mapping[str, Any]) -> Cells:
    _refuse_unknown(told, {"since", "cell"}, "the file")
    since, listed = told.get("since"), told.get("cell")
    if not isinstance(since, datetime) or since.tzinfo is None:
        raise ValueError("since must be a time with its zone, like 2026-12-01T00:00:00Z")
    if not isinstance(listed, list) or not listed:
        raise ValueError("there must be a [[cell]]")
    owners: list[int | None] = [None] * SLOTS
    cells = [_cell(one, f"cell {place}", owners) for place, one in enumerate(listed, 1)]
    for what in ("name", "number", "broker", "database"):
        said = [value for cell in cells if (value := getattr(cell, what)) is not None]
        if len(set(said)) != len(said):
            raise ValueError(f"two cells have the same {what}")
    missing = [slot for slot, owner in enumerate(owners) if owner is None]
    if missing:
        raise ValueError(f"no cell has slot {missing[0]}; all from 0 to {SLOTS - 1} need one")
    return Cells(tuple(cells), tuple(owner for owner in owners if owner is not None), since.astimezone(UTC))


def _cell(told: object, place: str, owners: list[int | None]) -> Cell:
    if not isinstance(told, dict):
        raise ValueError(f"{place} must be a table, [[cell]]")
    _refuse_unknown(told, {"name", "number", "broker", "broker_file", "database", "database_file", "slots"}, place)
    name, number_ = told.get("name"), told.get("number")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{place}: name must be of small letters, digits and -, at most 30")
    if not isinstance(number_, int) or isinstance(number_, bool) or not 0 <= number_ <= _MOST:
        raise ValueError(f"{place}: number must be from 0 to {_MOST}")
    slots = told.get("slots")
    if not isinstance(slots, str):
        raise ValueError(f'{place}: slots must be a text like "0-511, 600"')
    for part in slots.split(","):
        for slot in _range(part.strip(), place):
            if owners[slot] is not None:
                raise ValueError(f"{place}: slot {slot} is another cell's, too")
            owners[slot] = number_
    broker, database = _url(told, "broker", place), _url(told, "database", place)
    if broker is None:
        raise ValueError(f"{place}: give broker, or the broker_file that holds it")
    return Cell(name, number_, broker, database)


def _range(part: str, place: str) -> range:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise ValueError(f'{place}: slots must be a text like "0-511, 600"')
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < SLOTS:
        raise ValueError(f"{place}: slots are from 0 to {SLOTS - 1}")
    return range(first, last + 1)


def _url(told: Mapping[str, Any], name: str, place: str) -> str | None:
    given, path = told.get(name), told.get(f"{name}_file")
    if given is None and path is None:
        return None
    if given is not None and path is not None:
        raise ValueError(f"{place}: give {name} or {name}_file, not both")
    if path is not None:
        try:
            given = Path(str(path)).read_text().strip()
        except OSError as error:
            raise ValueError(f"{place}: cannot read {path}: {error.strerror}") from None
    if not isinstance(given, str) or "://" not in given:
        raise ValueError(f"{place}: {name} must be a URL")
    if name == "broker" and not given.startswith(("redis", "sentinel")):
        raise ValueError(f"{place}: the broker of a cell must be Redis or Valkey")
    return given


def _refuse_unknown(told: Mapping[str, Any], known: set[str], place: str) -> None:
    if unknown := sorted(set(told) - known):
        raise ValueError(f"{place} has no {unknown[0]}")
