"""A deadline, by a clock that also runs while this process or the whole machine is suspended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datetime import timedelta

#: ``CLOCK_BOOTTIME``, because ``CLOCK_MONOTONIC`` stands still while a machine is suspended.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A moment after which it is too late.

    Attributes:
        at: seconds on the clock that :func:`within` reads.
    """

    at: float

    @classmethod
    def within(cls, span: timedelta) -> Self:
        """Return the deadline that is ``span`` from now."""
        return cls(time.clock_gettime(_CLOCK) + span.total_seconds())

    def later(self, span: timedelta) -> Deadline:
        """Return the deadline that is ``span`` later than this one."""
        return Deadline(self.at + span.total_seconds())

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.clock_gettime(_CLOCK) > self.at
