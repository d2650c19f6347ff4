"""Types that all parts of the SMS providers' file use: paths, slots and secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The mark of a secret (``${…}``) or of a slot that each message fills (``{…}``).
MARK = re.compile(r"\$\{([^{}]+)\}|\{(\w+)\}")


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


#: A number; ``true`` and ``false`` are not allowed.
Number = Annotated[float, BeforeValidator(_no_truth)]
#: The path of a value in a provider's JSON, such as ``data.0.id``.
Path = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=200)]
Scalar = str | int | float | bool | None
#: A field that consists of one secret's mark.
Secret = Annotated[str, Field(pattern=r"^\$\{[^{}]+\}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,60}$")]


class Strict(BaseModel):
    """A part of the file. It refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BasicAuth(Strict):
    """HTTP basic authentication. The password is a secret's mark."""

    #: The user's name.
    user: str
    #: The mark of the password.
    password: Secret


class Secrets:
    """Looks up the secrets whose marks the file contains: ``${NAME}`` and ``${file:/path}``.

    Args:
        environment: the variables.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._found: dict[str, str] = {}
        #: Secrets that are not set, or whose value is not one line of text.
        self.missing: list[str] = []

    def get(self, name: str) -> str:
        """Return a secret. A missing one is returned as an empty text and added to :attr:`missing`."""
        if name not in self._found:
            value = self._look_up(name)
            if not value or not value.isprintable():
                self.missing.append(name)
            self._found[name] = value
        return self._found[name]

    def fill(self, text: str) -> str:
        """Return a text with its secrets filled in."""
        return MARK.sub(lambda m: self.get(m[1]) if m[1] else m[0], text)

    def _look_up(self, name: str) -> str:
        if not name.startswith("file:"):
            return self._environment.get(name, "")
        try:
            return FilePath(name.removeprefix("file:")).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def texts(value: object) -> Iterator[str]:
    """Return all texts in a nested value; keys are not included."""
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from texts(part)
        case list() | tuple():
            for part in value:
                yield from texts(part)


def slots_of(value: object) -> Iterator[str]:
    """Return the names of the slots in a value."""
    return (m[2] for text in texts(value) for m in MARK.finditer(text) if m[2])


def secrets_of(value: object) -> Iterator[str]:
    """Return the names of the secrets in a value."""
    return (m[1] for text in texts(value) for m in MARK.finditer(text) if m[1])


def only(slots: Iterator[str] | list[str], known: tuple[str, ...]) -> None:
    """Refuse unknown slots.

    Raises:
        ValueError: its text names the unknown slot and the known slots.
    """
    for slot in slots:
        if slot not in known:
            allowed = ", ".join(f"{{{name}}}" for name in known)
            raise ValueError(f"{{{slot}}} is no slot here; there {'are ' + allowed if known else 'is none'}")
