"""How the provider behaves badly, for a while, at some of its doors."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from enum import StrEnum


class Door(StrEnum):
    """What the provider can be asked."""

    PUSH = "push"
    SMS = "sms"
    LIST = "list"
    TOKEN = "token"


class Mood(StrEnum):
    """What it does to a request instead of answering as usual."""

    #: 429, come back after a while; nothing is taken.
    BUSY = "busy"
    #: 503; nothing is taken.
    BROKEN = "broken"
    #: 500; it is taken all the same.
    BROKEN_TAKEN = "broken, taken"
    #: The connection is reset; nothing is taken.
    RESET = "reset"
    #: It is taken, and the connection is reset before the answer.
    LOST = "lost answer"
    #: Nothing comes back for a long time; nothing is taken.
    HOLE = "black hole"
    #: It is taken, and nothing comes back for a long time.
    HOLE_TAKEN = "black hole, taken"
    #: It is taken, and the answer comes late.
    SLOW = "slow"
    #: The list leaves out what was taken a moment ago.
    BEHIND = "list behind"


#: Moods in which a message is taken.
TAKES = frozenset({Mood.BROKEN_TAKEN, Mood.LOST, Mood.HOLE_TAKEN, Mood.SLOW})


@dataclass(frozen=True, slots=True)
class Trouble:
    """A mood at one door.

    Attributes:
        until: when it ends, seconds since 1970.
        share: of the requests that meet it, 0 to 1.
        wait_s: of ``BUSY``, what it asks for; of ``SLOW``, how late the answer comes.
    """

    door: Door
    mood: Mood
    until: float
    share: float = 1
    wait_s: float = 1


class Troubles:
    """The present moods. The last one at a door counts."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._now: list[Trouble] = []

    def add(self, trouble: Trouble) -> None:
        """Begin one."""
        self._now.insert(0, trouble)

    def clear(self) -> None:
        """End all of them."""
        self._now.clear()

    def meet(self, door: Door) -> Trouble | None:
        """Return what a request meets; ``None``: the usual answer."""
        now = time.time()
        self._now = [trouble for trouble in self._now if trouble.until > now]
        found = next((trouble for trouble in self._now if trouble.door == door), None)
        return found if found and self._random.random() < found.share else None
