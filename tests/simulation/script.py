"""Scripts: what a run is made of. A seed makes one (``plots.py``), shrinking takes things out, and JSON keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from oracle.trouble import Door, Mood

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification that is asked for.

    Attributes:
        at: when, in seconds after the beginning.
        steps: trigger and seconds of each SMS.
        known: to a user who has just signed up, instead of a device and a number given inline.
        device: ``ok``, ``gone`` or ``none``.
        critical: its category.
        keyed: under an idempotency key, and asked for twice.
        in_s: not before so many seconds from then.
        number: which of the run's numbers; equal ones are one person's.
        project: of the application that asks; empty: of none.
        test: that application's client is one for tests.
        key_of: it is asked for once, under the key of that other notification, which is another project's.
        blast: it is a blast's, to one person, who has been known for long.
        media: its SMS show a picture.
        inline: who is known is introduced by the same call.
    """

    at: float
    steps: tuple[tuple[str, float], ...] = (("not_clicked", 10.0),)
    known: bool = False
    device: str = "ok"
    critical: bool = False
    keyed: bool = False
    in_s: float | None = None
    number: int = 0
    project: str = ""
    test: bool = False
    key_of: int | None = None
    blast: bool = False
    media: bool = False
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What a phone, an application or a person says.

    Attributes:
        what: ``delivered``, ``clicked``, ``seen``, ``cancel`` (of a blast: all of it), ``STOP``, ``START`` or, to an SMS,
            ``reply``; ``failed``: the
            provider says of its last SMS that it went to nobody, for what the operator must mend; ``pause`` and ``resume``:
            an operator does so with all SMS; ``new number``, ``no number``, ``logout`` (of their devices) and ``erase``: the
            application says so of the person; ``wipe``: Redis loses the counts of the limits.
        about: which notification.
        at: when, in seconds after the beginning; or after the beginning of
        during: the fault of that place, if it is not ``None``.
        seconds: how long a pause lasts at most.
        at_once: it is recorded as soon as it is accepted; else it waits in its queue like everything.
    """

    what: str
    about: int
    at: float
    during: int | None = None
    at_once: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a job.

    Attributes:
        op: to which kind of job.
        nth: to which of these, counted from 0.
        step: before which of its steps, counted from 0; or, if that is not empty,
        before: before the first step of this name.
        kind: ``stop``, ``die`` or ``cut``.
        seconds: how long it stands still.
        cut: it also loses its session.
    """

    op: str
    nth: int
    step: int
    kind: str = "stop"
    seconds: float = 0.0
    cut: bool = False
    before: str = ""

    def __str__(self) -> str:
        does = {"stop": f"stands still for {self.seconds:g} s", "die": "dies", "cut": "loses its session"}[self.kind]
        lost = ", and its session ends" if self.cut and self.kind == "stop" else ""
        return f"{self.op} ({self.nth + 1}.) {does}{lost}"


@dataclass(frozen=True, slots=True)
class Treated:
    """How the provider treats a request: the ``nth`` at a door, counted from 0."""

    door: Door
    nth: int
    mood: Mood


@dataclass(frozen=True, slots=True)
class Delayed:
    """A message of a task, counted from 0, that is delivered late; ``seconds`` below 0: never."""

    task: str
    nth: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Script:
    """All that decides a run.

    Attributes:
        order: the seed of who steps next; 0: each job runs to its end.
        workers: how many there are.
    """

    order: int = 0
    workers: int = 2
    notices: tuple[Notice, ...] = ()
    said: tuple[Said, ...] = ()
    faults: tuple[Fault, ...] = ()
    treated: tuple[Treated, ...] = ()
    delayed: tuple[Delayed, ...] = ()

    @property
    def has_chores(self) -> bool:
        """Whether something is said in it that workers look after by the clock."""
        return any(said.what in ("failed", "pause", "resume") for said in self.said)

    @property
    def has_blasts(self) -> bool:
        """Whether one of its notifications is a blast's."""
        return any(notice.blast for notice in self.notices)

    @property
    def size(self) -> int:
        """How many things happen in it."""
        parts = (self.notices, self.said, self.faults, self.treated, self.delayed)
        return sum(map(len, parts)) + sum(len(notice.steps) for notice in self.notices)

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it."""
        found: dict[str, Any] = json.loads(text)
        kinds: dict[str, type[Any]] = {
            "notices": Notice, "said": Said, "faults": Fault, "treated": Treated, "delayed": Delayed
        }  # fmt: skip
        for name, kind in kinds.items():
            found[name] = tuple(kind(**_values(kind, one)) for one in found.get(name, ()))
        return cls(**found)


def _values(kind: type[Any], one: dict[str, Any]) -> dict[str, Any]:
    values = {f.name: one[f.name] for f in fields(kind) if f.name in one}
    if kind is Notice:
        values["steps"] = tuple((when, after) for when, after in values["steps"])
    if kind is Treated:
        values |= {"door": Door(values["door"]), "mood": Mood(values["mood"])}
    return values
