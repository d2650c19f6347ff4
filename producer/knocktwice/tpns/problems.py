"""All that is wrong with a payload, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knocktwice_shared.errors import InvalidMessage


class InvalidPayload(InvalidMessage):
    """The payload is wrong or not supported: correct the named fields. Nothing was sent.

    Its ``problems`` come in the order of the payload.
    """

    def __init__(self, problems: list[InvalidMessage]) -> None:
        first, *others = problems
        super().__init__(first.field, first.problem, others=others)

    @classmethod
    def of_one(cls, field: str, problem: str) -> InvalidPayload:
        """Return the error about one field."""
        return cls([InvalidMessage(field, problem)])


class Problems(list[InvalidMessage]):
    """Collects what is wrong. What reads a field returns ``None`` when it is wrong, or missing and not required."""

    def add(self, field: str, problem: str) -> None:
        """Note one."""
        self.append(InvalidMessage(field, problem))

    def object(
        self, holder: Mapping[str, Any], name: str, path: str, *, required: bool = False
    ) -> Mapping[str, Any] | None:
        """Read an object."""
        value = self._value(holder, name, path, required=required)
        if value is not None and not isinstance(value, Mapping):
            self.add(path, f"must be an object, not {type(value).__name__}")
            return None
        return value

    def text(self, holder: Mapping[str, Any], name: str, path: str, *, required: bool = False) -> str | None:
        """Read a text that is not empty."""
        value = self._value(holder, name, path, required=required)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self.add(path, "must be text, and not empty")
            return None
        return value

    def texts(self, holder: Mapping[str, Any], name: str, path: str, *, required: bool = False) -> list[str] | None:
        """Read a list of texts; a required one is not empty."""
        value = self._value(holder, name, path, required=required)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.add(path, "must be a list of texts")
            return None
        if required and not value:
            self.add(path, "is empty")
            return None
        return value

    def number(
        self, holder: Mapping[str, Any], name: str, path: str, least: int, most: int, *, required: bool = False
    ) -> int | None:
        """Read a whole number within bounds."""
        value = self._value(holder, name, path, required=required)
        if value is not None and (type(value) is not int or not least <= value <= most):
            self.add(path, f"must be a whole number from {least} to {most}")
            return None
        return value

    def flag(self, holder: Mapping[str, Any], name: str, path: str) -> bool:
        """Read true or false; left out, false."""
        value = holder.get(name)
        if value is not None and not isinstance(value, bool):
            self.add(path, "must be true or false")
        return value is True

    def unknown(self, holder: Mapping[str, Any], known: set[str], path: str, advice: Mapping[str, str]) -> None:
        """Note each field that is not known, with what to do instead. One that is null or empty says nothing."""
        for name, value in holder.items():
            if name not in known and value:
                self.add(f"{path}{name}", advice.get(name, "is not supported; leave it out"))

    def _value(self, holder: Mapping[str, Any], name: str, path: str, *, required: bool) -> Any:
        value = holder.get(name)
        if value is None and required:
            self.add(path, "is missing")
        return value
