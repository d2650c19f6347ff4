"""What goes wrong, when and for how long: a plan made by a seed, and its execution."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from knocktwice_shared.names import Queue
from oracle.installation import WIRES
from oracle.records import Fault
from oracle.suspendable_worker import NAMES
from oracle.trouble import Door, Mood
from oracle.wires import Break

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

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
#: What no producer writes.
_GARBAGE = [
    b"\x00nothing",
    b"[]",
    b'{"body": "e30=", "headers": {}, "properties": {}}',
    b'{"body": 7, "content-type": "x"}',
]


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Attributes:
        at: seconds after the beginning.
        seconds: how long it lasts; what is killed comes back by itself.
        name: what it is, for reports.
        begin: does it, and returns what ends it.
        part: what is not there again before it says so.
        loses_answers: see :class:`oracle.records.Fault`.
        came: asked again and again until it says that what was prepared has come about; only then its time counts.
    """

    at: float
    seconds: float
    name: str
    begin: Callable[[Installation], Undo | None]
    part: str = ""
    loses_answers: bool = True
    came: Callable[[Installation], bool] | None = None


def plan(
    seed: int, seconds: float, count: int, *, lease_s: float, workers: int, kinds: Collection[str] = ()
) -> list[Planned]:
    """Spread so many faults over the time, oldest first.

    Args:
        kinds: only these, by their names in :data:`KINDS`; none: all.
        lease_s: the system's lease; some stops are longer than it.
    """
    dice = random.Random(f"faults {seed}")
    names = [name for name in KINDS if not kinds or name in kinds]
    weights = [KINDS[name][0] for name in names]
    planned = []
    for at in sorted(dice.uniform(0, seconds) for _ in range(count)):
        (kind,) = dice.choices(names, weights)
        one = KINDS[kind][1](at, dice, lease_s, workers)
        # Long ones begin early enough to come to their end.
        planned.append(replace(one, at=max(0, min(at, seconds - one.seconds))))
    return sorted(planned, key=lambda one: one.at)


@dataclass
class Faults:
    """Carries a plan out, from the main thread."""

    here: Installation
    log: Book
    planned: list[Planned]
    _started_at: float = field(default_factory=time.time)
    _open: list[_Begun] = field(default_factory=list)
    _recovering: list[_Begun] = field(default_factory=list)

    def look(self) -> None:
        """Begin and end what is due."""
        now = time.time()
        while self.planned and self._started_at + self.planned[0].at <= now:
            fault = self.planned.pop(0)
            undo = fault.begin(self.here)
            self._open.append(_Begun(fault, now, undo or _nothing, now + fault.seconds, fault.came is None))
        for one in self._open:
            if not one.came and one.fault.came and one.fault.came(self.here):
                one.came, one.ends_at = True, now + one.fault.seconds
        for one in [one for one in self._open if one.ends_at <= now]:
            self._undo(one)
        for one in [one for one in self._recovering if self.here.is_ready(one.fault.part)]:
            self._note(one)

    def end(self) -> None:
        """End all. What was killed may need some more time to be there again."""
        for one in list(self._open):
            self._undo(one)

    def close(self) -> None:
        """Note what has not recovered yet."""
        for one in list(self._recovering):
            self._note(one)

    def _undo(self, one: _Begun) -> None:
        one.undo()
        self._open.remove(one)
        self._recovering.append(one)

    def _note(self, one: _Begun) -> None:
        self._recovering.remove(one)
        self.log.write(Fault(one.at, time.time(), one.fault.name, one.fault.loses_answers))


@dataclass(slots=True, eq=False)
class _Begun:
    """A fault that has begun. ``came``: see :class:`Planned`."""

    fault: Planned
    at: float
    undo: Undo
    ends_at: float
    came: bool


def _nothing() -> None:
    """End what ends by itself."""


def _kill(at: float, dice: random.Random, _: float, workers: int) -> Planned:
    name = dice.choice([*_names(workers), *_names(workers), "beat", "gateway"])

    def begin(here: Installation) -> None:
        here.signal(here.pid(name), signal.SIGKILL)

    return Planned(at, 1, f"kill -9 of {name}", begin, name)


def _kill_child(at: float, dice: random.Random, _: float, __: int) -> Planned:
    def begin(here: Installation) -> None:
        if children := here.children("gateway"):
            here.signal(dice.choice(children), signal.SIGKILL)

    return Planned(at, 1, "kill -9 of a child of the gateway", begin, "gateway")


def _end_in_order(at: float, dice: random.Random, _: float, workers: int) -> Planned:
    name = dice.choice([*_names(workers), "gateway"])

    def begin(here: Installation) -> None:
        here.signal(here.pid(name), signal.SIGTERM)

    return Planned(at, 2, f"SIGTERM of {name}", begin, name)


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


def _stop_all(at: float, dice: random.Random, lease_s: float, workers: int) -> Planned:
    seconds = dice.choice([0.7, 1.5]) * lease_s

    def begin(here: Installation) -> Undo:
        pids = [here.pid(name) for name in _names(workers)]
        for pid in pids:
            here.signal(pid, signal.SIGSTOP)

        def end() -> None:
            for pid in pids:
                here.signal(pid, signal.SIGCONT)

        return end

    return Planned(at, seconds, f"SIGSTOP of all workers for {seconds:g} s", begin)


def _stop_at_a_point(at: float, dice: random.Random, lease_s: float, _: int) -> Planned:
    # Most can go wrong around the SMS.
    of_sms = [name for name in NAMES if name.startswith("send_sms")]
    point, seconds = dice.choice(dice.choice([NAMES, of_sms])), dice.choice([0.9, 2]) * lease_s
    return _standing(at, point, seconds, cut=dice.random() < 0.5)


def _suspend_sender(at: float, dice: random.Random, lease_s: float, _: int) -> Planned:
    """Stop one right before its requests leave, until everybody else has given it up."""
    return _standing(at, "send_sms between its claim and the provider", 4.5 * lease_s, cut=dice.random() < 0.8)


def _standing(at: float, point: str, seconds: float, *, cut: bool) -> Planned:
    def begin(here: Installation) -> Undo:
        here.ask_to_stand_still(point)
        return lambda: here.release(point)

    def came(here: Installation) -> bool:
        if here.standing(point) is None:
            return False
        if cut:
            here.cut_sessions(only_busy=True)
        return True

    story = f"a worker stands still {point} for {seconds:g} s" + (" and loses its session" if cut else "")
    # Where nothing has been asked of the provider yet, no answer is lost.
    asked = "provider took" in point or "record" in point
    return Planned(at, seconds, story, begin, loses_answers=asked, came=came)


def _restart(at: float, dice: random.Random, _: float, __: int) -> Planned:
    name, how = dice.choice(["postgres", "valkey"]), dice.choice([signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM])
    if name == "valkey" and how is signal.SIGQUIT:
        how = signal.SIGTERM

    def begin(here: Installation) -> None:
        server = here.servers.postgres if name == "postgres" else here.servers.valkey
        # PostgreSQL is never killed child by child: its supervisor would not be one.
        # PostgreSQL ends for SIGTERM only when all sessions have left by themselves; service managers send SIGINT.
        postgres = {signal.SIGKILL: signal.SIGQUIT, signal.SIGTERM: signal.SIGINT}
        here.signal(server.pid, postgres.get(how, how) if name == "postgres" else how)

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


def _garbage(at: float, dice: random.Random, _: float, __: int) -> Planned:
    queue, what = dice.choice(list(Queue)), dice.choice(_GARBAGE)

    def begin(here: Installation) -> None:
        here.push_to(queue, what)

    return Planned(at, 1, f"garbage in {queue}", begin)


def _trouble(at: float, dice: random.Random, lease_s: float, __: int) -> Planned:
    (door, mood), seconds = dice.choice(_MOODS), dice.uniform(0.5, 2) * lease_s
    share, wait_s = dice.choice([0.3, 1]), dice.choice([1, 2, 4])

    def begin(here: Installation) -> None:
        here.trouble(door=door, mood=mood, seconds=seconds, share=share, wait_s=wait_s)

    return Planned(at, seconds, f"provider, {door}: {mood} for {seconds:.1f} s", begin)


def _names(workers: int) -> list[str]:
    return [f"worker{n}" for n in range(1, workers + 1)]


#: Every kind of fault, how often it comes, and what plans one.
KINDS: dict[str, tuple[int, Callable[[float, random.Random, float, int], Planned]]] = {
    "kill": (4, _kill),
    "kill a child": (1, _kill_child),
    "end in order": (1, _end_in_order),
    "stop": (3, _stop),
    "stop all": (1, _stop_all),
    "stop at a point": (5, _stop_at_a_point),
    "suspend a sender": (2, _suspend_sender),
    "restart a server": (2, _restart),
    "cut sessions": (2, _cut_sessions),
    "break a wire": (5, _break_wire),
    "garbage": (1, _garbage),
    "trouble at the provider": (6, _trouble),
}
