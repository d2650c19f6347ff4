"""One small way to break the program, and the lists of them."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: The part of a file's path that says nothing about its room.
_WORKER = "worker/knocktwice_worker/"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one place of one file.

    Attributes:
        file: which one, below the root of the repository.
        old: the text that is there now; it occurs once.
        new: what stands there instead.
        promise: what is broken by it, for people.
        tests: files or single tests that must notice.
        equivalent: why nothing can notice; such a mutant is listed and not run. ``None``: it is no such one.
    """

    file: str
    old: str
    new: str
    promise: str
    tests: tuple[str, ...]
    equivalent: str | None = None

    @property
    def id(self) -> str:
        """Names it, with its tests, from one run to the next."""
        return hashlib.sha256(repr((self.file, self.old, self.new, self.tests)).encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """The file, without what all have in common."""
        return self.file.removeprefix(_WORKER)

    @property
    def room(self) -> str:
        """The folder of the file, or the file itself where it lies in none."""
        return self.place.rpartition("/")[0] or self.place

    def apply(self, root: Path) -> None:
        """Change the file below ``root``.

        Raises:
            ValueError: the text is not there exactly once: the program has changed, and the list has to follow.
        """
        path = root / self.file
        text = path.read_text("utf-8")
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: is there {times} times, not once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), "utf-8")


def read(folder: Path) -> list[Mutant]:
    """Read the kept lists: in each file below a folder, tables ``[[mutant]]`` with the names of :class:`Mutant`'s
    attributes.

    A file may name ``file`` and ``tests`` once, above its tables, for all of them that do not name their own. A text
    that begins with a line break begins with the next line; so a piece of code can be written as it stands.

    Raises:
        TypeError: a name is unknown or missing.
    """
    return [one for path in sorted(folder.rglob("*.toml")) for one in _of(tomllib.loads(path.read_text("utf-8")))]


def _of(listed: dict[str, Any]) -> list[Mutant]:
    entries: list[dict[str, Any]] = listed.pop("mutant")
    return [_mutant({**listed, **entry}) for entry in entries]


def _mutant(entry: dict[str, Any]) -> Mutant:
    tests = () if "equivalent" in entry else tuple(entry["tests"])
    return Mutant(**{**entry, "tests": tests})
