"""A run: a script is played on an installation, one step of one job at a time, until nothing is left to do."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, Task
from knocktwice_worker.celery import app
from knocktwice_worker.runtime import publishing
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.runtime.gathering import GatheredTask
from oracle.records import Evidence
from oracle.records import Fault as FaultSeen
from simulation.callers import Callers
from simulation.gathering import gather
from simulation.installation import RECORDER, WORKERS
from simulation.provider import Books
from simulation.queues import NOTICED_S, Queues, short
from simulation.turns import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oracle.records import Rules
    from oracle.violations import Finding
    from simulation.installation import Installation
    from simulation.queues import Message
    from simulation.script import Fault, Script

#: What a step takes (seconds).
STEP_S = 0.002
#: A run that has not ended by then never does: steps, and seconds.
_MOST_STEPS, _MOST_S = 6_000, 4 * 3600.0
#: Threads of all processes that may decide at once, as ``Fallback.check`` allows one process.
_CHECKS = 2
#: Time between two looks for rows that are due (seconds), and the longest.
_TICK_S, _LONGEST_TICK_S = 0.5, 8.0
#: How much real time PostgreSQL gets to find a deadlock.
_DEADLOCK_S = 0.05


@dataclass
class Played:
    """What a run has shown.

    Attributes:
        evidence: for the judge.
        findings: what he said.
        story: what happened, with seconds after the beginning.
        steps: how many there were.
        reached: how many steps jobs of each kind had at most.
        fired: how many of the faults came about.
        settled: everything has ended.
    """

    script: Script
    evidence: Evidence
    story: list[str]
    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    reached: dict[str, int] = field(default_factory=dict)
    fired: int = 0
    settled: bool = True


class Run:
    """One run.

    Args:
        here: where.
        script: of what.
        seed: of what is random otherwise.
    """

    def __init__(self, here: Installation, script: Script, rules: Rules) -> None:
        self._here, self._script = here, script
        self._clock = here.clock
        self._clock.begin(script.order)
        here.redis.forget()
        self._dice = random.Random(script.order)
        self.evidence = Evidence(0.0, rules)
        self.story: list[str] = []
        self._jobs: dict[str, Job] = {}
        self._started: dict[str, int] = defaultdict(int)
        self._reached: dict[str, int] = defaultdict(int)
        self._faults = list(enumerate(script.faults))
        self._fault_at: dict[int, float] = {}
        self._last: Job | None = None
        self._steps = 0
        self._tick_at, self._pause_s = 0.0, _TICK_S
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
            for job in list(self._jobs.values()):
                self._kill(job)
            self._here.queues = None
        self.evidence = gather(self._here, self.evidence, self._callers.ids, settled=settled)
        fired = len(self._fault_at)
        return Played(self._script, self.evidence, self.story, [], self._steps, dict(self._reached), fired, settled)

    def _play(self) -> bool:
        while self._steps < _MOST_STEPS and self._clock.since < _MOST_S:
            self._say()
            self._look_at_clocks()
            jobs = [job for job in self._jobs.values() if self._may_step(job)]
            starts = self._starts()
            if jobs or starts:
                self._choose(jobs, starts)
            elif not self._wait():
                return True
        return False

    # Choosing

    def _may_step(self, job: Job) -> bool:
        return job.blocked_at is None and job.resume_at <= self._clock.now

    def _starts(self) -> list[tuple[str, Message | None]]:
        """Return which worker may start on which message; ``None``: it looks for rows that are due."""
        idle = [name for name in WORKERS[: self._script.workers] if name not in self._jobs]
        if not idle:
            return []
        checking = sum(job.op == short(Task.CHECK_FALLBACK) for job in self._jobs.values())
        ready = [m for m in self._queues.ready() if m.task is not Task.CHECK_FALLBACK or checking < _CHECKS]
        found: list[tuple[str, Message | None]] = [(idle[0], message) for message in ready]
        if self._jobs and self._script.order and self._dice.random() < 0.04:
            found.append((idle[0], None))
        return found

    def _choose(self, jobs: list[Job], starts: list[tuple[str, Message | None]]) -> None:
        stays = self._last in jobs and (not self._script.order or self._dice.random() < 0.6)
        if stays and self._last is not None:
            self._step(self._last)
        elif jobs and (not self._script.order or not starts or self._dice.random() < 0.6):
            self._step(self._dice.choice(jobs) if self._script.order else jobs[0])
        elif starts:
            actor, message = self._dice.choice(starts) if self._script.order else starts[0]
            self._start_message(actor, message) if message else self._start(actor, "tick", partial(self._tick, actor))

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
        self._start(actor, short(message.task), lambda: self._perform(task, group))

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
        swept = here.inbox.sweep(partial(publishing.publish_message, app))
        found = swept + dispatch(here, partial(publishing.publish, app))
        # A row that is due and locked is looked at twice a second; here less and less often, to save steps.
        self._pause_s = _TICK_S if found else min(2 * self._pause_s, _LONGEST_TICK_S)
        self._tick_at = self._clock.now + self._pause_s

    def _start(self, actor: str, op: str, work: Callable[[], None]) -> None:
        nth = self._started[op]
        self._started[op] += 1
        job = Job(actor, self._here.actors[actor], op, nth, work)
        self._jobs[actor] = self._last = job
        job.start()
        self._after(job)

    def _step(self, job: Job) -> None:
        if self._breaks(job):
            return
        self._last = job
        self._steps += 1
        self._clock.now += STEP_S
        job.go()
        self._after(job)

    def _after(self, job: Job) -> None:
        """Wait until a job stands still, and look whether others that waited for its locks go on."""
        self._settle(job)
        for other in [one for one in self._jobs.values() if one.blocked_at is not None and one is not job]:
            self._settle(other)

    def _settle(self, job: Job) -> None:
        was = job.blocked_at
        job.settle(self._here.sessions.blocked, self._clock.now)
        if job.blocked_at is not None and was is None:
            self.tell(f"{job.actor}: {job.op} waits for a lock after {job.at}")
        self._reached[job.op] = max(self._reached[job.op], job.steps)
        if job.over:
            job.join()
            self._jobs.pop(job.actor, None)
            if self._last is job:
                self._last = None
            if job.error is not None and not _is_expected(job.error):
                raise job.error

    # Faults

    def _breaks(self, job: Job) -> bool:
        """Do to a job what the script says should happen to it here; return whether it makes no step now."""
        for place, fault in self._faults:
            here = job.at.startswith(fault.before) if fault.before else job.steps == fault.step
            if here and (fault.op, fault.nth) == (job.op, job.nth):
                self._faults.remove((place, fault))
                self._break(job, place, fault)
                return True
        return False

    def _break(self, job: Job, place: int, fault: Fault) -> None:
        now = self._clock.now
        self._fault_at[place] = now
        self.evidence.faults.append(FaultSeen(now, now + max(fault.seconds, NOTICED_S), str(fault)))
        self.tell(f"{job.actor}: {fault}, before {job.at}")
        if fault.kind == "die":
            self._kill(job)
            return
        if fault.kind == "stop":
            job.resume_at = now + fault.seconds
        if fault.kind == "cut" or fault.cut:
            self._cut(job)

    def _cut(self, job: Job) -> None:
        for pid in list(job.sessions):
            self._here.sessions.end(pid)
        job.sessions.clear()
        self._after(job) if job.blocked_at is not None else self._wake_others(job)

    def _wake_others(self, job: Job) -> None:
        for other in [one for one in self._jobs.values() if one.blocked_at is not None and one is not job]:
            self._settle(other)

    def _kill(self, job: Job) -> None:
        """Kill the process of a job. Its message comes again after the visibility time-out."""
        job.dead = True
        if job.blocked_at is not None:
            # Its statement fails, and its thread ends before its next step.
            self._here.sessions.end(job.pid)
        job.kill()
        self._jobs.pop(job.actor, None)
        if self._last is job:
            self._last = None
        self._wake_others(job)

    # Time

    def _look_at_clocks(self) -> None:
        """Bring about the time-outs of PostgreSQL whose time has come."""
        now = self._clock.now
        for job in list(self._jobs.values()):
            if job.blocked_at is not None:
                session = job.sessions.get(job.pid)
                if session is not None and now >= job.blocked_at + session.lock_s:
                    self.tell(f"{job.actor}: {job.op} has waited too long for a lock")
                    job.lock_timed_out = True
                    self._here.sessions.lose_patience(job.pid)
                    self._settle(job)
                continue
            for pid, session in list(job.sessions.items()):
                if now >= session.used_at + session.idle_s:
                    self.tell(f"{job.actor}: {job.op} was idle for too long; PostgreSQL ends its session")
                    self._here.sessions.end(pid)
                    job.sessions.pop(pid)
                    self._wake_others(job)

    def _times(self) -> Iterator[float]:
        """Yield when something happens by itself."""
        began = self._clock.began
        for job in self._jobs.values():
            if job.blocked_at is not None:
                session = job.sessions.get(job.pid)
                yield job.blocked_at + (session.lock_s if session else 0)
            else:
                yield job.resume_at
                yield from (session.used_at + session.idle_s for session in job.sessions.values())
        if self._notices:
            yield began + self._notices[0][1].at
        yield from (at for said in self._said if (at := self._due(said)) is not None)
        if (message_at := self._queues.next_at()) is not None:
            yield message_at

    def _wait(self) -> bool:
        """Let time pass until something happens; return whether anything will."""
        blocked = [job for job in self._jobs.values() if job.blocked_at is not None]
        if len(blocked) > 1 and any(self._found_out(job) for job in blocked):
            return True
        idle = next((name for name in WORKERS[: self._script.workers] if name not in self._jobs), None)
        times = [at for at in self._times() if at > self._clock.now]
        row_at = self._row_at() if idle else None
        if row_at is not None and (row_at := max(row_at, self._tick_at)) <= min(times, default=row_at):
            self._pass(max(row_at, self._clock.now))
            self._start(str(idle), "tick", partial(self._tick, str(idle)))
            return True
        if not times:
            return bool(self._jobs)
        self._pass(min(times))
        return True

    def _found_out(self, job: Job) -> bool:
        """Whether PostgreSQL has ended a statement because of a deadlock."""
        if not job.stands(_DEADLOCK_S):
            return False
        job.stood()
        self._settle(job)
        return True

    def _pass(self, at: float) -> None:
        passed = at - self._clock.now
        if passed > 0:
            self._clock.now = at
            self._here.redis.age(passed)

    def _row_at(self) -> float | None:
        """Return when the next row is due, or the next message of the inbox is published again."""
        found = self._here.sessions.ask("SELECT extract(epoch FROM min(wake_at))::float8 FROM deliveries")[0][0]
        times = [] if found is None else [float(found)]
        if self._here.redis.hlen(INBOX_MESSAGES):
            oldest: Any = self._here.redis.zrange(INBOX_ACCEPTED, 0, 0, withscores=True)
            times += [score + self._here.settings.inbox_grace_s + 1 for _, score in oldest]
        return min(times, default=None)

    # What is said

    def _due(self, said: Any) -> float | None:
        if said.during is None:
            return float(self._clock.began + said.at)
        began = self._fault_at.get(said.during)
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
            if said.what in ("STOP", "START"):
                if "gateway" in self._jobs:
                    continue
                self._said.remove(said)
                self._start("gateway", said.what, self._callers.writing(said))
                self._finish("gateway")
                continue
            if said.at_once and RECORDER in self._jobs:
                continue
            self._said.remove(said)
            message = self._callers.say(said)
            if said.at_once and message is not None:
                self._start_message(RECORDER, message)
                self._finish(RECORDER)

    def _finish(self, actor: str) -> None:
        """Let a job run as far as it can."""
        while (job := self._jobs.get(actor)) is not None and self._may_step(job):
            self._step(job)


def _is_expected(error: BaseException) -> bool:
    """Whether an error is the product's own, which it recovers from."""
    return isinstance(error, Exception) and not isinstance(
        error, (AssertionError, TypeError, NameError, AttributeError)
    )
