"""Celery's queues as far as they matter: what is published waits, in no particular order, until a worker takes it.

A message is acknowledged when its work is done, well or badly. If its worker died, it comes again after the visibility
time-out; or the broker has lost it, which Celery on Redis does if the worker dies between two commands.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import Queue, Task
from oracle.records import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oracle.records import Evidence
    from simulation.clock import Clock
    from simulation.keyspace import Keyspace

#: After so long a message that nobody has acknowledged is delivered again (seconds), as ``celery.py`` sets it.
VISIBILITY_S = 180.0
#: Until somebody notices a fault, and has a reason to be late (seconds): the lease must end, and a step's time may
#: begin anew.
NOTICED_S = 60.0


@dataclass(eq=False)
class Message:
    """A message in a queue.

    Attributes:
        id: of the task.
        task: which.
        argument: its only argument.
        ready_at: it is not delivered before.
        taken_at: when it was delivered last; ``None``: not since it was given back.
        again: it was delivered or published before.
    """

    id: str
    task: Task
    argument: Any
    ready_at: float
    taken_at: float | None = None
    again: bool = False


@dataclass
class Queues:
    """All queues of a run.

    Attributes:
        evidence: where faults are noted.
        delays: which message of a task, counted from 0, is delivered how many seconds late; ``None``: never.
        tell: notes what happened, for the story.
    """

    clock: Clock
    evidence: Evidence
    delays: Mapping[tuple[Task, int], float | None]
    tell: Callable[[str], None]
    messages: list[Message] = field(default_factory=list)
    _published: dict[Task, int] = field(default_factory=lambda: defaultdict(int))

    def publish(self, name: str, argument: Any, id_: str, *, again: bool = False) -> None:
        """Put a message on its queue; ``again``: it was published before."""
        task = Task(name)
        n = self._published[task]
        self._published[task] = n + 1
        late = self.delays.get((task, n), 0.0)
        if late != 0.0:
            now = self.clock.now
            self.evidence.faults.append(
                Fault(now, now + max(late or 0, NOTICED_S), f"message {n + 1} of {short(task)} is late")
            )
        if late is None:
            self.tell(f"the broker loses message {n + 1} of {short(task)}")
            return
        if late:
            self.tell(f"message {n + 1} of {short(task)} waits {late:g} s in its queue")
        self.messages.append(Message(id_, task, argument, self.clock.now + late, again=again))

    def collect(self, redis: Keyspace) -> None:
        """Take over what producers have put on the lists of Redis."""
        for raw in redis.taken([queue.value for queue in Queue]):
            found: Any = json.loads(raw)
            ((argument,), *_) = json.loads(found["body"])
            self.publish(found["headers"]["task"], argument, found["headers"]["id"])

    def ready(self) -> list[Message]:
        """Return what a worker may take now."""
        now = self.clock.now
        for message in self.messages:
            if message.taken_at is not None and now >= message.taken_at + VISIBILITY_S:
                message.taken_at, message.ready_at, message.again = None, now, True
        return [message for message in self.messages if message.taken_at is None and message.ready_at <= now]

    def next_at(self) -> float | None:
        """Return when the next message is ready that is not yet."""
        times = [m.ready_at if m.taken_at is None else m.taken_at + VISIBILITY_S for m in self.messages]
        return min(times, default=None)

    def done(self, message: Message) -> None:
        """Acknowledge a message."""
        if message in self.messages:
            self.messages.remove(message)


def short(task: Task) -> str:
    """Return the name of a task in stories."""
    return task.value.removeprefix("knocktwice.")
