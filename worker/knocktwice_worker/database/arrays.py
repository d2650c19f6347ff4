"""Python lists on their way into SQL, as PostgreSQL's array literals: ``'{"a","b",NULL}'``.

psycopg2 writes ``ARRAY['a', 'b', NULL]``, an expression of which PostgreSQL parses and plans every item. A batch has
five hundred of them in dozens of lists, and for both sides a literal is half the work. Like psycopg2's empty list it
has no type of its own, so where the context does not say one, the statement does: ``CAST(:ids AS uuid[])``.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg2 import extensions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: No text that PostgreSQL can hold has one.
_SEPARATOR = "\0"
#: Types of which a list has few different values, and whose equal values are written alike.
_FEW_VALUES = frozenset({timedelta, bool})


def register() -> None:
    """Have psycopg2 write lists so, in this process."""
    extensions.register_adapter(list, _List)


class _List:
    """A list for psycopg2, which asks this object for the list's SQL."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self._conn: Any = None

    def prepare(self, conn: Any) -> None:
        """Take the connection, whose encoding and settings decide how text is quoted."""
        self._conn = conn

    def getquoted(self) -> bytes:
        """Return the SQL.

        Raises:
            TypeError: there is something in the list that has no place in an array.
        """
        quoted = extensions.QuotedString(literal(self._items))
        if self._conn is not None:
            quoted.prepare(self._conn)
        return bytes(quoted.getquoted())


def literal(items: Sequence[Any]) -> str:
    """Return items as the text of an array.

    Args:
        items: text, numbers, booleans, times, durations, UUIDs, bytes and ``None``.

    Raises:
        TypeError: one is something else.
    """
    if items.count(None) == len(items):
        return "{" + ",".join(["NULL"] * len(items)) + "}"
    try:
        # All text, as most are: quoted as a whole.
        return '{"' + _joined(items).replace(_SEPARATOR, '","') + '"}'
    except TypeError:
        return "{" + ",".join(_each(items)) + "}"


def _each(items: Sequence[Any]) -> list[str]:
    """Return the items one by one, as they are written in an array."""
    kinds = {*map(type, items)}
    absent = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {str}:
        texts = iter(_joined([item for item in items if item is not None]).split(_SEPARATOR))
        return ["NULL" if item is None else f'"{next(texts)}"' for item in items]
    if len(kinds) == 1 and kinds <= _FEW_VALUES:
        # Such as the delays of a batch, which are nearly all the same: each value is written once.
        written = {item: _written(item) for item in {*items}}
        return [written[item] for item in items]
    if not absent and kinds == {int}:
        return [str(item) for item in items]
    return [_written(item) for item in items]


def _joined(texts: Sequence[str]) -> str:
    """Return texts escaped and with a separator between them.

    Raises:
        TypeError: one is no text.
        ValueError: one holds NUL.
    """
    text = _SEPARATOR.join(texts)
    if text.count(_SEPARATOR) != len(texts) - 1:
        raise ValueError("PostgreSQL's text cannot hold NUL")
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _written(item: Any) -> str:
    if item is None:
        return "NULL"
    write = _WRITERS.get(type(item))
    if write is None:
        # A value of a subclass, such as an id that a producer returned, is written like one of its class.
        write = next((_WRITERS[kind] for kind in type(item).__mro__ if kind in _WRITERS), None)
    if write is None:
        raise TypeError(f"a list with {type(item).__name__} in it cannot be an array")
    return f'"{_escaped(write(item))}"'


def _duration(value: timedelta) -> str:
    return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: str,
    int: str,
    bool: str,
    float: repr,
    Decimal: str,
    datetime: datetime.isoformat,
    date: date.isoformat,
    timedelta: _duration,
    UUID: str,
    bytes: lambda value: f"\\x{value.hex()}",
}
