"""All problems of an input at once.

A parser raises at the first wrong field, because nearly every input is right and this costs nothing. If it raises,
:func:`all_at_once` calls it again and collects: the checks of single fields then note their problem and return a
placeholder, and the parser goes on to the next field.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from knocktwice_shared.errors import InvalidMessage, UnsupportedVersion

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: The problems found so far, while they are collected.
_found: ContextVar[list[InvalidMessage] | None] = ContextVar("found", default=None)


def fail(field: str, problem: str, placeholder: _T) -> _T:
    """Raise :class:`InvalidMessage`; while problems are collected, note it and return ``placeholder``."""
    error = InvalidMessage(field, problem)
    found = _found.get()
    if found is None:
        raise error
    found.append(error)
    return placeholder


def attempt(check: Callable[_P, _T], placeholder: _T, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what ``check`` returns. While problems are collected, its error is noted and ``placeholder`` returned."""
    found = _found.get()
    if found is None:
        return check(*args, **kwargs)
    try:
        return check(*args, **kwargs)
    except InvalidMessage as error:
        found.extend(error.problems)
        return placeholder


def settle() -> None:
    """Raise what was collected so far. Call it before checks that need all fields to be right.

    Raises:
        InvalidMessage: with all problems.
    """
    found = _found.get()
    if found:
        raise InvalidMessage.of(found)


def collected(check: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> tuple[_T | None, list[InvalidMessage]]:
    """Return what ``check`` returns, and all its problems. With problems the value is of no use."""
    found: list[InvalidMessage] = []
    token = _found.set(found)
    value = None
    try:
        value = check(*args, **kwargs)
    except InvalidMessage as error:
        if isinstance(error, UnsupportedVersion):
            raise
        found.extend(error.problems)
    finally:
        _found.reset(token)
    return value, found


def collecting() -> bool:
    """Return whether problems are collected."""
    return _found.get() is not None


def all_at_once(parse: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a parser raise one error with all problems. It must not change its arguments: it may be called twice."""

    @wraps(parse)
    def parse_all(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not collecting():
            try:
                return parse(*args, **kwargs)
            except UnsupportedVersion:
                raise
            except InvalidMessage as first:
                _, found = collected(parse, *args, **kwargs)
                raise InvalidMessage.of(found or [first]) from None
        value, found = collected(parse, *args, **kwargs)
        if found:
            raise InvalidMessage.of(found)
        return value  # type: ignore[return-value]

    return parse_all
