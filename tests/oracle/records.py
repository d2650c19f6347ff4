"""What the judge may know, and nothing else: what callers were told, the provider's books, and how things ended.

Each record is one line of JSON in a file that only grows, so that a killed writer loses at most its last line. All
times are seconds since 1970 of one machine's clock.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from oracle.records_of_load import Backlog, Parked, Poison

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self


class Told(StrEnum):
    """What the answer to a call said."""

    #: The system has taken responsibility.
    ACCEPTED = "accepted"
    #: The call cannot work; nothing happens.
    REFUSED = "refused"
    #: No answer, or one that says that nobody knows: it may count or not.
    UNKNOWN = "unknown"


class Answer(StrEnum):
    """How the provider treated a request."""

    #: In the books, and the caller was told so.
    TAKEN = "taken"
    #: In the books, and the caller was not told.
    TAKEN_UNTOLD = "taken, not told"
    #: Not in the books, and the caller was told to come back later, or that something is broken.
    LATER = "later"
    #: Not in the books, and the caller was not told anything.
    UNANSWERED = "unanswered"
    #: Refused for good.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an application, a phone or a person.

    Attributes:
        asked_at: when the call began.
        told_at: when its answer came; for an unknown one when the caller gave up.
    """

    asked_at: float
    told_at: float
    told: Told


@dataclass(frozen=True, slots=True)
class Step:
    """One SMS step of a plan.

    Attributes:
        when: its trigger; ``None`` if nothing comes before it.
        after_s: how long the step before it gets.
        text: what it says.
    """

    when: str | None
    after_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Notify(Call):
    """A call to notify one person.

    Attributes:
        token: the caller's own name of it, unique but for repeats under one key; it is in every text.
        id: as the caller gave it or was told; ``None`` if it knows none.
        via: ``library`` or ``http``.
        user: whose devices and number were registered before; or else
        registrations, phone: as given inline.
        push: what the push says; ``None``: nothing is pushed.
        steps: what follows.
        send_at: not before this time.
        prefers_repeat: a second SMS is better than none (critical messages).
        test: said by a client for tests, of which nothing reaches a provider.
    """

    token: str
    id: str | None
    via: str
    user: str | None = None
    registrations: tuple[str, ...] = ()
    phone: str | None = None
    push: str | None = None
    steps: tuple[Step, ...] = ()
    key: str | None = None
    send_at: float | None = None
    prefers_repeat: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True)
class Receipt(Call):
    """An answer to a notification. ``kind`` is ``delivered``, ``clicked``, ``seen`` or ``replied``."""

    id: str
    token: str
    kind: str
    registration: str


@dataclass(frozen=True, slots=True)
class Cancel(Call):
    """A call to stop a notification, by its id or its key."""

    token: str


@dataclass(frozen=True, slots=True)
class Wish(Call):
    """A text that a person wrote back. ``word`` is ``STOP`` or ``START``."""

    number: str
    word: str


@dataclass(frozen=True, slots=True)
class Device(Call):
    """A call that says whose a device is; ``user`` is ``None`` after a logout."""

    registration: str
    user: str | None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Phone(Call):
    """A call that says which number a person has; ``number`` is ``None`` if they have none any more."""

    user: str
    number: str | None


@dataclass(frozen=True, slots=True)
class PushAsked:
    """A request for a push in the provider's books.

    Attributes:
        at: when it was read from the wire.
        silent: it shows nothing; it takes an earlier push off the screen.
    """

    at: float
    answer: Answer
    registration: str
    id: str
    token: str
    text: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class SmsAsked:
    """A request for an SMS in the provider's books. ``sid`` is the provider's name of a message that it took."""

    at: float
    answer: Answer
    number: str
    text: str
    token: str
    sid: str | None


@dataclass(frozen=True, slots=True)
class FailedLater(Call):
    """The provider's report that it sent the SMS ``sid`` to nobody, for what the operator must mend:
    it may be sent again.
    """

    token: str
    sid: str


@dataclass(frozen=True, slots=True)
class Paused(Call):
    """An operator lets all SMS wait, until ``until``."""

    until: float


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of messages that the provider was asked for; ``told``: it answered, and the answer was whole."""

    at: float
    number: str
    told: bool


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which the provider itself had no processor, so that what came in was noted late."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the system, from when to when.

    Attributes:
        loses_answers: a provider's answer may not have arrived because of it.
    """

    at: float
    until: float
    name: str
    loses_answers: bool = True


@dataclass(frozen=True, slots=True)
class StepEnd:
    """Where a step stood in the end.

    Attributes:
        number: its place in the plan; the push is 0.
        provider_id: what the provider calls the message, as far as the system knows.
    """

    number: int
    channel: str
    state: str
    reason: str | None
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class End:
    """How a notification ended, as the system shows it.

    Attributes:
        state, reason: of the notification; ``active`` if it has not ended.
        receipts: kind and commit time of each receipt that was kept.
        wasted: it says that a receipt came after the SMS.
        unreadable: why its story cannot be told, if that is so.
    """

    id: str
    token: str
    state: str
    reason: str | None
    created_at: float
    finished_at: float | None
    steps: tuple[StepEnd, ...] = ()
    receipts: tuple[tuple[str, float], ...] = ()
    wasted: bool = False
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process, or a server, used at one moment.

    Attributes:
        of: which one; a process that was started anew is another one.
        what: ``memory`` (bytes), ``threads``, ``files``, ``connections`` or ``keys`` (without expiry).
    """

    at: float
    of: str
    what: str
    value: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide what is right, and what the judge forgives.

    Attributes:
        per_day: SMS to one number in a calendar day.
        same_s: the same text to one number only once in this time.
        slack_s: what is under way when somebody says something else may still arrive so much later.
        late_s: how much later than due something may arrive when nothing is broken.
        recovery_s: how much later than that it may arrive after a fault.
    """

    per_day: int = 10
    same_s: float = 30
    slack_s: float = 2
    late_s: float = 10
    recovery_s: float = 30


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run. ``ended_at``: until when somebody looked."""

    ended_at: float
    rules: Rules = Rules()
    notifies: list[Notify] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    phones: list[Phone] = field(default_factory=list)
    pushes: list[PushAsked] = field(default_factory=list)
    texts: list[SmsAsked] = field(default_factory=list)
    failures: list[FailedLater] = field(default_factory=list)
    pauses: list[Paused] = field(default_factory=list)
    lists: list[Listed] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    poisons: list[Poison] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    backlogs: list[Backlog] = field(default_factory=list)
    #: Numbers that may not be texted, as the system shows them in the end.
    opted_out: set[str] = field(default_factory=set)
    #: Accepted messages that nobody has worked on.
    unprocessed: int = 0

    def add(self, record: object) -> None:
        """Put a record where it belongs."""
        getattr(self, _PLACES[type(record)]).append(record)

    def of(self, token: str) -> Self:
        """Return what is known of one notification, for a report; what concerns all of them is left out."""
        found = type(self)(self.ended_at, self.rules)
        for name in ("notifies", "receipts", "cancels", "pushes", "texts", "failures", "ends"):
            getattr(found, name).extend(one for one in getattr(self, name) if one.token == token)
        return found


_PLACES: dict[type, str] = {
    Notify: "notifies",
    Receipt: "receipts",
    Cancel: "cancels",
    Wish: "wishes",
    Device: "devices",
    Phone: "phones",
    PushAsked: "pushes",
    SmsAsked: "texts",
    FailedLater: "failures",
    Paused: "pauses",
    Listed: "lists",
    Stall: "stalls",
    Fault: "faults",
    End: "ends",
    Sample: "samples",
    Poison: "poisons",
    Parked: "parked",
    Backlog: "backlogs",
}
_KINDS = {kind.__name__: kind for kind in _PLACES}


class Book:
    """A file of records that only grows. Threads may share it, and several processes may write to one file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def write(self, record: object) -> None:
        """Add a record in one write, which the kernel keeps whole."""
        line = json.dumps({"record": type(record).__name__, **asdict(record)})  # type: ignore[call-overload]
        with self._lock:
            os.write(self._file, line.encode() + b"\n")


def read(path: Path) -> Iterator[object]:
    """Read a file of records; a last line that a kill cut off is left out."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield _record(json.loads(line))


def _record(found: dict[str, Any]) -> object:
    kind = _KINDS[found.pop("record")]
    enums = {"told": Told, "answer": Answer}
    values = {f.name: found[f.name] for f in fields(kind) if f.name in found}
    for name, enum in enums.items():
        if isinstance(values.get(name), str):
            values[name] = enum(values[name])
    if kind is Notify:
        values["steps"] = tuple(Step(**step) for step in values["steps"])
        values["registrations"] = tuple(values["registrations"])
    if kind is End:
        values["steps"] = tuple(StepEnd(**step) for step in values["steps"])
        values["receipts"] = tuple((what, at) for what, at in values["receipts"])
    return kind(**values)
