"""Limits how many threads of a worker run the same function at once."""

from __future__ import annotations

import threading
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_R = TypeVar("_R")


def at_most(threads: int) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let at most ``threads`` threads into a function at once; the others wait without a database connection."""
    gate = threading.BoundedSemaphore(threads)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def enter(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with gate:
                return function(*args, **kwargs)

        return enter

    return decorate
