"""Durability: how safely a message must be kept before a call returns, and the broker's confirmation of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.durability import Durability
from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_VARIABLE = "KNOCKTWICE_DURABILITY"
_REPLICAS = "KNOCKTWICE_DURABILITY_REPLICAS"
#: The part of a client's timeout that the broker may take to confirm. The rest is for its answer to arrive.
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Asked:
    """The safety that a client asks of the broker.

    Args:
        level: how safely.
        replicas: how many replicas must have a message, at the level ``replica``.
    """

    level: Durability
    replicas: int = 1

    def command(self, timeout: float) -> Sequence[str | int] | None:
        """Return the command that waits for all that its connection has written; ``None``: nothing is waited for.

        Args:
            timeout: the client's, in seconds.
        """
        milliseconds = max(1, int(timeout * _SHARE * 1000))
        match self.level:
            case Durability.DISK:
                return ("WAITAOF", 1, 0, milliseconds)
            case Durability.REPLICA:
                return ("WAIT", self.replicas, milliseconds)
            case Durability.MEMORY:
                return None

    def problem(self, answer: object) -> str | None:
        """Return what is missing in the broker's answer to :meth:`command`; ``None``: it is as safe as asked.

        Args:
            answer: what the broker returned, or the error that it answered.
        """
        if isinstance(answer, Exception):
            off = "appendonly" in str(answer)
            return "its append-only file is off: set appendonly yes" if off else f"it refuses to wait: {answer!s:.100}"
        if self.level is Durability.REPLICA:
            have = answer if isinstance(answer, int) else 0
            return None if have >= self.replicas else f"{have} of {self.replicas} replicas have it"
        written = isinstance(answer, list) and bool(answer) and answer[0] >= 1
        return None if written else "it is not written to disk yet"


def asked(durability: Durability | str | None, replicas: int | None) -> Asked:
    """Return what is asked of the broker: as given, or as the environment says, or else ``memory``.

    Raises:
        KnocktwiceError: there is no such level, or the number of replicas is not one.
    """
    level = durability if durability is not None else os.environ.get(_VARIABLE) or Durability.MEMORY
    number = replicas if replicas is not None else os.environ.get(_REPLICAS) or 1
    try:
        found = Durability(level)
    except ValueError:
        levels = ", ".join(Durability)
        raise KnocktwiceError(f"durability (or {_VARIABLE}) must be one of {levels}, not {level!r:.50}") from None
    try:
        count = int(number)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise KnocktwiceError(f"replicas (or {_REPLICAS}) must be a whole number from 1 on, not {number!r:.50}")
    return Asked(found, count)
