"""The simulation's clock: it moves only when the simulation says so, and everything reads it.

PostgreSQL's ``knocktwice_now()`` returns a session setting that each transaction gets with its first statement
(``sessions.py``), Redis' ``TIME`` in scripts is replaced (``keyspace.py``), and the modules of Python that read a clock for a
decision get this one in place of :mod:`time`.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from knocktwice import identity, wire
from knocktwice_shared import ids
from knocktwice_worker.audience import erased
from knocktwice_worker.channels import deadline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo
    from typing import Self

#: When the first run begins. Each run begins at noon of another day, so that none meets the limits of another.
_BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
_DAY_S = 86_400


class Clock:
    """Seconds since 1970, as the simulation has them."""

    #: The modules that read it ask for this one by name.
    CLOCK_MONOTONIC = time.CLOCK_MONOTONIC

    def __init__(self) -> None:
        self._runs = 0
        self._random = random.Random(0)
        self.now = self.began = _BEGIN

    def begin(self, seed: int) -> None:
        """Begin a run, at noon of the next day. What is random in it repeats with its seed."""
        self._runs += 1
        self._random.seed(seed)
        random.seed(seed)
        self.now = self.began = _BEGIN + self._runs * _DAY_S

    @property
    def since(self) -> float:
        """Seconds since the run began."""
        return self.now - self.began

    @property
    def moment(self) -> datetime:
        """Now, for Python."""
        return datetime.fromtimestamp(self.now, UTC)

    # The functions of ``time`` and ``os`` that the modules below use.
    def clock_gettime(self, _: int) -> float:
        """Return now."""
        return self.now

    def monotonic(self) -> float:
        """Return now."""
        return self.now

    def time_ns(self) -> int:
        """Return now, in nanoseconds."""
        return int(self.now * 1e9)

    def urandom(self, size: int) -> bytes:
        """Return bytes that the run's seed decides."""
        return self._random.randbytes(size)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have deadlines, ids, the memory of erased people and what applications say of people read this clock."""

        told = [0.0]

        class Moments(datetime, metaclass=_AnyDatetime):
            """In place of :class:`datetime` where somebody asks for now; no two answers are the same."""

            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                told[0] = max(self.now, told[0] + 1e-6) if told[0] < self.now + 1 else self.now
                return cls.fromtimestamp(told[0], tz)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(identity, "datetime", Moments)
            patch.setattr(wire, "datetime", Moments)
            patch.setattr(deadline, "time", self)
            patch.setattr(erased, "time", self)
            patch.setattr(ids, "time", self)
            patch.setattr(ids, "os", _Random(self))
            yield


class _AnyDatetime(type):
    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, datetime)


class _Random:
    """In place of :mod:`os` where only random bytes are wanted."""

    def __init__(self, clock: Clock) -> None:
        self.urandom = clock.urandom
        self.getpid = os.getpid
