"""A run: a script is played on an installation, one step of one job at a time, until nothing is left to do."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, Task
from knocktwice_worker.celery import app
from knocktwice_worker.notifications.store import paused, provider_reports
from knocktwice_worker.runtime import publishing
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.runtime.gathering import GatheredTask
from oracle.records import Evidence
from simulation.callers import Callers
from simulation.gathering import gather
from simulation.installation import GATEWAY, RECORDER, WORKERS
from simulation.processes import Processes
from simulation.provider import Books
from simulation.queues import Queues, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle.records import Rules
    from oracle.violations import Finding
    from simulation.installation import Installation
    from simulation.queues import Message
    from simulation.script import Said, Script
    from simulation.turns import Job

#: A run that has not ended by then never does: steps, and seconds.
_MOST_STEPS, _MOST_S = 6_000, 4 * 3600.0
#: Threads of all processes that may be at such a task at once, as these allow one process.
_AT_MOST = {Task.CHECK_FALLBACK: 2, Task.SEND_PAGE: 2}
#: Time between two looks at what workers do by the clock besides (seconds), and how many there are at most.
_CHORE_S, _MOST_CHORES = 5.0, 60
_CHORES = """
SELECT EXISTS (SELECT FROM provider_reports)
  OR EXISTS (SELECT FROM pauses WHERE NOT settled)
"""
#: What an earlier run has left.
_NO_CHORES = """
DELETE FROM provider_reports;
UPDATE pauses SET ended_at = coalesce(ended_at, since), settled = true WHERE NOT settled
"""
_WAKES = "SELECT extract(epoch FROM min(wake_at))::float8 FROM {table}"
#: What is said to the gateway, and writes at once.
_AT_THE_GATEWAY = {
    "STOP": Callers.writing,
    "START": Callers.writing,
    "reply": Callers.writing,
    "failed": Callers.reporting,
    "pause": Callers.switching,
    "resume": Callers.switching,
}
#: Time between two looks for rows that are due (seconds), and the longest.
_TICK_S, _LONGEST_TICK_S = 0.5, 8.0


@dataclass
class Played:
    """What a run has shown.

    Attributes:
        script: what was played.
        evidence: for the judge.
        findings: what he said.
        story: what happened, with seconds after the beginning.
        steps: how many there were.
        fired: how many of the faults came about.
        settled: everything has ended.
    """

    script: Script
    evidence: Evidence
    story: list[str]
    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    fired: int = 0
    settled: bool = True


class Run:
    """One run.

    Args:
        here: where.
        script: of what.
        rules: what is right, for the judge.
    """

    def __init__(self, here: Installation, script: Script, rules: Rules) -> None:
        self._here, self._script = here, script
        self._clock = here.clock
        self._clock.begin(script.order)
        here.redis.forget()
        self._dice = random.Random(script.order)
        self.evidence = Evidence(0.0, rules)
        self.story: list[str] = []
        self._processes = Processes(here, self.evidence, script.faults, self.tell)
        self._tick_at, self._pause_s = 0.0, _TICK_S
        self._chores, self._chore_at = _MOST_CHORES if script.has_chores else 0, 0.0
        if script.has_chores:
            here.sessions.ask(_NO_CHORES)
        delays = {(Task(f"knocktwice.{d.task}"), d.nth): d.seconds if d.seconds >= 0 else None for d in script.delayed}
        self._queues = here.queues = Queues(self._clock, self.evidence, delays, self.tell)
        books = Books(self._clock, self.evidence, {(t.door, t.nth): t.mood for t in script.treated}, self.tell)
        for wire in here.wires:
            wire.books = books
        self._callers = Callers(here, self._queues, self.evidence, self.tell)
        self._notices = sorted(enumerate(script.notices), key=lambda one: one[1].at)
        self._said = list(script.said)

    def tell(self, what: str) -> None:
        """Note what happened."""
        self.story.append(f"{self._clock.since:8.2f} s  {what}")

    def play(self) -> Played:
        """Play it to its end."""
        settled = False
        try:
            settled = self._play()
        finally:
            self._processes.end()
            self._here.queues = None
        self._callers.find_ids()
        self.evidence = gather(self._here, self.evidence, self._callers.ids, settled=settled)
        done = self._processes
        return Played(self._script, self.evidence, self.story, [], done.steps, len(done.fault_at), settled)

    def _play(self) -> bool:
        processes = self._processes
        while processes.steps < _MOST_STEPS and self._clock.since < _MOST_S:
            self._say()
            processes.look_at_clocks()
            starts = self._starts()
            if processes.ready or starts:
                self._choose(processes.ready, starts)
            elif not self._wait():
                return True
        return False

    # Choosing

    def _starts(self) -> list[tuple[str, Message | None]]:
        """Return which worker may start on which message; ``None``: it looks for rows that are due."""
        idle = [name for name in WORKERS[: self._script.workers] if name not in self._processes.jobs]
        if not idle:
            return []
        busy = Counter(job.op for job in self._processes.jobs.values())
        ready = [m for m in self._queues.ready() if busy[short(m.task)] < _AT_MOST.get(m.task, len(WORKERS))]
        found: list[tuple[str, Message | None]] = [(idle[0], message) for message in ready]
        if self._processes.jobs and self._script.order and self._dice.random() < 0.04:
            found.append((idle[0], None))
        return found

    def _choose(self, jobs: list[Job], starts: list[tuple[str, Message | None]]) -> None:
        last = self._processes.last
        if last is not None and last in jobs and (not self._script.order or self._dice.random() < 0.6):
            self._processes.step(last)
        elif jobs and (not self._script.order or not starts or self._dice.random() < 0.6):
            self._processes.step(self._dice.choice(jobs) if self._script.order else jobs[0])
        elif starts:
            actor, message = self._dice.choice(starts) if self._script.order else starts[0]
            self._start_message(actor, message) if message else self._processes.start(
                actor, "tick", partial(self._tick, actor)
            )

    # Jobs

    def _start_message(self, actor: str, message: Message) -> None:
        task: Any = app.tasks[message.task.value]
        group = [message]
        if (
            isinstance(task, GatheredTask)
            and not message.again
            and (not self._script.order or self._dice.random() < 0.5)
        ):
            group = [other for other in self._queues.ready() if other.task is message.task and not other.again]
        for one in group:
            one.taken_at = self._clock.now
        self._processes.start(actor, short(message.task), lambda: self._perform(task, group))

    def _perform(self, task: Any, group: list[Message]) -> None:
        """Work on messages as Celery does: together where that is possible, and alone if it fails."""
        if len(group) > 1:
            try:
                task.together([(one.id, one.argument) for one in group])
            except Exception as error:  # noqa: BLE001 - as in the product: each alone
                self.tell(f"{short(group[0].task)} failed for all of them: {type(error).__name__}")
            else:
                for one in group:
                    self._queues.done(one)
                return
        for one in group:
            task.push_request(id=one.id, delivery_info={publishing.REDELIVERED: one.again})
            try:
                task.run(one.argument)
            except Exception as error:  # noqa: BLE001 - Celery acknowledges what has failed
                self.tell(f"{short(one.task)} failed: {error}")
            finally:
                task.pop_request()
            self._queues.done(one)

    def _tick(self, actor: str) -> None:
        here = self._here.actors[actor]
        if self._script.has_blasts:
            here.expansion.ring(partial(publishing.publish, app))
        swept = here.inbox.sweep(partial(publishing.publish_message, app))
        found = swept + dispatch(here, partial(publishing.publish, app))
        # A row that is due and locked is looked at twice a second; here less and less often, to save steps.
        self._pause_s = _TICK_S if found else min(2 * self._pause_s, _LONGEST_TICK_S)
        self._tick_at = self._clock.now + self._pause_s

    def _chore(self, actor: str) -> None:
        """Do what a worker does by the clock for reports that came early, and for what waited for a pause."""
        here = self._here.actors[actor]
        provider_reports.bring_and_take_up(here.engine, None, here.settings.useless_after)
        paused.wake(here.engine)

    # Time

    def _times(self) -> Iterator[float]:
        """Yield when something happens by itself."""
        began = self._clock.began
        yield from self._processes.times()
        if self._notices:
            yield began + self._notices[0][1].at
        yield from (at for said in self._said if (at := self._due(said)) is not None)
        if (message_at := self._queues.next_at()) is not None:
            yield message_at

    def _wait(self) -> bool:
        """Let time pass until something happens; return whether anything will."""
        if self._processes.found_out():
            return True
        idle = next((name for name in WORKERS[: self._script.workers] if name not in self._processes.jobs), None)
        times = [at for at in self._times() if at > self._clock.now]
        row_at = self._row_at() if idle else None
        if row_at is not None:
            row_at = max(row_at, self._tick_at)
        chore_at = self._next_chore() if idle and self._chores else None
        if chore_at is not None and chore_at <= min([*times, row_at or chore_at]):
            self._pass(chore_at)
            self._chores -= 1
            self._chore_at = self._clock.now + _CHORE_S
            self._processes.start(str(idle), "clock", partial(self._chore, str(idle)))
            return True
        if row_at is not None and row_at <= min(times, default=row_at):
            self._pass(max(row_at, self._clock.now))
            self._processes.start(str(idle), "tick", partial(self._tick, str(idle)))
            return True
        if not times:
            return bool(self._processes.jobs)
        self._pass(min(times))
        return True

    def _pass(self, at: float) -> None:
        passed = at - self._clock.now
        if passed > 0:
            self._clock.now = at
            self._here.redis.age(passed)

    def _row_at(self) -> float | None:
        """Return when the next row is due, or the next message of the inbox is published again."""
        tables = ("deliveries", "blasts") if self._script.has_blasts else ("deliveries",)
        found = [self._here.sessions.ask(_WAKES.format(table=table))[0][0] for table in tables]
        times = [float(at) for at in found if at is not None]
        if self._here.redis.hlen(INBOX_MESSAGES):
            oldest: Any = self._here.redis.zrange(INBOX_ACCEPTED, 0, 0, withscores=True)
            times += [score + self._here.settings.inbox_grace_s + 1 for _, score in oldest]
        return min(times, default=None)

    def _next_chore(self) -> float | None:
        """Return when the next of them is due; ``None``: there is none."""
        if not self._here.sessions.ask(_CHORES)[0][0]:
            return None
        return max(self._chore_at, self._clock.now)

    # What is said

    def _due(self, said: Said) -> float | None:
        if said.during is None:
            return float(self._clock.began + said.at)
        began = self._processes.fault_at.get(said.during)
        return None if began is None else float(began + said.at)

    def _say(self) -> None:
        now = self._clock.now
        while self._notices and self._clock.began + self._notices[0][1].at <= now:
            place, notice = self._notices.pop(0)
            self._callers.notify(place, notice)
        for said in list(self._said):
            at = self._due(said)
            if at is None or at > now:
                continue
            if not self._callers.may_say(said):
                self._said.remove(said)
                continue
            if said.what in _AT_THE_GATEWAY:
                if GATEWAY in self._processes.jobs:
                    continue
                self._said.remove(said)
                self._processes.start(GATEWAY, said.what, _AT_THE_GATEWAY[said.what](self._callers, said))
                self._processes.finish(GATEWAY)
                continue
            if said.at_once and RECORDER in self._processes.jobs:
                continue
            self._said.remove(said)
            message = self._callers.say(said)
            if said.at_once and message is not None:
                self._start_message(RECORDER, message)
                self._processes.finish(RECORDER)
