"""What goes wrong, when and for how long: a plan made by a seed, and its execution."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oracle.installation import WIRES
from oracle.records import Fault
from oracle.suspendable_worker import NAMES
from oracle.trouble import Door, Mood
from oracle.wires import Break

if TYPE_CHECKING:
    from collections.abc import Callable

    from oracle.installation import Installation
    from oracle.records import Book

    Undo = Callable[[], None]

#: What the provider does at which door.
_MOODS = [
    *((Door.PUSH, mood) for mood in (Mood.BUSY, Mood.BROKEN, Mood.BROKEN_TAKEN, Mood.RESET, Mood.LOST, Mood.HOLE)),
    *((Door.SMS, mood) for mood in Mood if mood is not Mood.BEHIND),
    *((Door.LIST, mood) for mood in (Mood.BROKEN, Mood.HOLE, Mood.BEHIND)),
    (Door.TOKEN, Mood.BROKEN),
]


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Attributes:
        at: seconds after the beginning.
        seconds: how long it lasts; what is killed comes back by itself.
        name: what it is, for reports.
        begin: does it, and returns what ends it.
    """

    at: float
    seconds: float
    name: str
    begin: Callable[[Installation], Undo | None]


def plan(seed: int, seconds: float, count: int, *, lease_s: float, workers: int) -> list[Planned]:
    """Spread so many faults over the time, oldest first.

    Args:
        lease_s: the system's lease; some stops are longer than it.
    """
    dice = random.Random(f"faults {seed}")
    kinds, weights = list(_KINDS), [weight for weight, _ in _KINDS.values()]
    planned = []
    for at in sorted(dice.uniform(0, seconds) for _ in range(count)):
        (kind,) = dice.choices(kinds, weights)
        planned.append(_KINDS[kind][1](at, dice, lease_s, workers))
    return planned


@dataclass
class Faults:
    """Carries a plan out, from the main thread."""

    here: Installation
    log: Book
    planned: list[Planned]
    done: int = 0
    _started_at: float = field(default_factory=time.time)
    _open: list[tuple[float, Planned, float, Undo]] = field(default_factory=list)

    def look(self) -> None:
        """Begin and end what is due."""
        now = time.time()
        while self.planned and self._started_at + self.planned[0].at <= now:
            fault = self.planned.pop(0)
            undo = fault.begin(self.here)
            self.done += 1
            self._open.append((now + fault.seconds, fault, now, undo or _nothing))
        for one in [one for one in self._open if one[0] <= now]:
            self._end(one)

    def end(self) -> None:
        """End all."""
        for one in list(self._open):
            self._end(one)

    def _end(self, one: tuple[float, Planned, float, Undo]) -> None:
        _, fault, began_at, undo = one
        undo()
        self._open.remove(one)
        self.log.write(Fault(began_at, time.time(), fault.name))


def _nothing() -> None:
    """End what ends by itself."""


def _kill(at: float, dice: random.Random, _: float, workers: int) -> Planned:
    name = dice.choice([*_names(workers), *_names(workers), "beat", "gateway"])

    def begin(here: Installation) -> None:
        here.signal(here.pid(name), signal.SIGKILL)

    return Planned(at, 1, f"kill -9 of {name}", begin)


def _kill_child(at: float, dice: random.Random, _: float, __: int) -> Planned:
    def begin(here: Installation) -> None:
        if children := here.children("gateway"):
            here.signal(dice.choice(children), signal.SIGKILL)

    return Planned(at, 1, "kill -9 of a child of the gateway", begin)


def _end_in_order(at: float, dice: random.Random, _: float, workers: int) -> Planned:
    name = dice.choice([*_names(workers), "gateway"])

    def begin(here: Installation) -> None:
        here.signal(here.pid(name), signal.SIGTERM)

    return Planned(at, 2, f"SIGTERM of {name}", begin)


def _stop(at: float, dice: random.Random, lease_s: float, workers: int) -> Planned:
    name = dice.choice([*_names(workers), *_names(workers), "beat", "gateway"])
    seconds = dice.choice([0.5, 1, 2]) * lease_s

    def begin(here: Installation) -> Undo:
        pids = [here.pid(name), *here.children(name)]
        for pid in pids:
            here.signal(pid, signal.SIGSTOP)

        def end() -> None:
            for pid in pids:
                here.signal(pid, signal.SIGCONT)

        return end

    return Planned(at, seconds, f"SIGSTOP of {name} for {seconds:g} s", begin)


def _stop_at_a_point(at: float, dice: random.Random, lease_s: float, _: int) -> Planned:
    point, seconds = dice.choice(NAMES), dice.choice([0.7, 2]) * lease_s
    cut = dice.random() < 0.5

    def begin(here: Installation) -> Undo:
        here.ask_to_stand_still(point)

        def end() -> None:
            if cut and here.standing(point):
                here.cut_sessions(only_busy=True)
            here.release(point)

        return end

    story = f"a worker stands still {point}" + (" and loses its session" if cut else "")
    return Planned(at, seconds, story, begin)


def _restart(at: float, dice: random.Random, _: float, __: int) -> Planned:
    name, how = dice.choice(["postgres", "valkey"]), dice.choice([signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM])
    if name == "valkey" and how is signal.SIGQUIT:
        how = signal.SIGTERM

    def begin(here: Installation) -> None:
        server = here.servers.postgres if name == "postgres" else here.servers.valkey
        # PostgreSQL is never killed child by child: its supervisor would not be one.
        here.signal(server.pid, signal.SIGQUIT if name == "postgres" and how is signal.SIGKILL else how)

    return Planned(at, 1, f"{how.name} of {name}", begin)


def _cut_sessions(at: float, dice: random.Random, _: float, __: int) -> Planned:
    only_busy = dice.random() < 0.5

    def begin(here: Installation) -> None:
        here.cut_sessions(only_busy=only_busy)

    return Planned(at, 0.5, f"the database ends {'busy' if only_busy else 'all'} sessions", begin)


def _break_wire(at: float, dice: random.Random, lease_s: float, __: int) -> Planned:
    name, how, seconds = dice.choice(WIRES), dice.choice(list(Break)), dice.uniform(0.3, 1.5) * lease_s

    def begin(here: Installation) -> None:
        here.break_wire(name, how, seconds)

    return Planned(at, seconds, f"wire {name}: {how} for {seconds:.1f} s", begin)


def _trouble(at: float, dice: random.Random, lease_s: float, __: int) -> Planned:
    (door, mood), seconds = dice.choice(_MOODS), dice.uniform(0.5, 2) * lease_s
    share, wait_s = dice.choice([0.3, 1]), dice.choice([1, 2, 4])

    def begin(here: Installation) -> None:
        here.trouble(door=door, mood=mood, seconds=seconds, share=share, wait_s=wait_s)

    return Planned(at, seconds, f"provider, {door}: {mood} for {seconds:.1f} s", begin)


def _names(workers: int) -> list[str]:
    return [f"worker{n}" for n in range(1, workers + 1)]


_KINDS: dict[str, tuple[int, Callable[[float, random.Random, float, int], Planned]]] = {
    "kill": (4, _kill),
    "kill a child": (1, _kill_child),
    "end in order": (1, _end_in_order),
    "stop": (4, _stop),
    "stop at a point": (5, _stop_at_a_point),
    "restart a server": (2, _restart),
    "cut sessions": (2, _cut_sessions),
    "break a wire": (5, _break_wire),
    "trouble at the provider": (6, _trouble),
}
