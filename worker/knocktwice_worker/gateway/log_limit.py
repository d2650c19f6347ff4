"""A limit for log lines that any request can cause: each once a minute, so that a stranger cannot fill the disk."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two lines of the same kind.
EVERY_S = 60.0
#: Kinds of lines that are told apart. They are few, unless somebody found a way to make them many.
_MOST = 1_000


class OncePerMinute:
    """Says whether it is time for another line of a kind.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def due(self, kind: str) -> bool:
        """Return whether there was none of this kind in the last minute. Then there is one now."""
        now = self._clock()
        if now - self._last.get(kind, float("-inf")) < EVERY_S:
            return False
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[kind] = now
        return True


class WarningsOncePerMinute(logging.Filter):
    """Lets each warning pass once a minute, and all other lines. For uvicorn, which warns of each invalid request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = OncePerMinute(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        return record.levelno != logging.WARNING or self._lines.due(str(record.msg))
