"""One small way to break the program, and the lists of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


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


def read(path: Path) -> list[Mutant]:
    """Read a kept list (TOML): tables ``[[mutant]]`` with the names of :class:`Mutant`'s attributes.

    A text that begins with a line break begins with the next line; so a piece of code can be written as it stands.

    Raises:
        TypeError: a name is unknown or missing.
    """
    return [_mutant(entry) for entry in tomllib.loads(path.read_text("utf-8"))["mutant"]]


def _mutant(entry: dict[str, Any]) -> Mutant:
    return Mutant(**{**entry, "tests": tuple(entry.get("tests", ()))})
