"""Until when something may be done, by a clock that also runs while this process, or the whole machine, is stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datetime import timedelta

#: ``CLOCK_MONOTONIC`` stands still while a machine is suspended.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment after which it is too late.

    Attributes:
        at: seconds, by the clock of :func:`within`.
    """

    at: float

    @classmethod
    def within(cls, span: timedelta) -> Self:
        """Return the moment that is so far from now."""
        return cls(time.clock_gettime(_CLOCK) + span.total_seconds())

    def later(self, span: timedelta) -> Deadline:
        """Return the moment that is so much later."""
        return Deadline(self.at + span.total_seconds())

    @property
    def over(self) -> bool:
        """Whether it is too late."""
        return time.clock_gettime(_CLOCK) > self.at
