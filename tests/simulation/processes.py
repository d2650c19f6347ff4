"""The processes of a run: each has one job at a time; the jobs take turns, and suffer what the script has for them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from oracle.records import Fault as FaultSeen
from simulation.queues import NOTICED_S
from simulation.turns import Hung, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from oracle.records import Evidence
    from simulation.installation import Installation
    from simulation.script import Fault

#: What a step takes (seconds).
STEP_S = 0.002
#: How long each job of a deadlock is looked at in turn (seconds of real time), until PostgreSQL has ended one; and how
#: often.
_DEADLOCK_S, _DEADLOCK_LOOKS = 0.02, 10_000


class Processes:
    """The jobs under way.

    Args:
        here: where.
        evidence: where faults are noted.
        faults: what happens to which job.
        tell: notes what happens, for the story.

    Attributes:
        jobs: each process with a job, by its name.
        last: which job made the last step; ``None``: it is over.
        steps: how many there were.
        fault_at: when each fault came about that did, by its place in the script.
    """

    def __init__(
        self, here: Installation, evidence: Evidence, faults: Sequence[Fault], tell: Callable[[str], None]
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.last: Job | None = None
        self.steps = 0
        self.fault_at: dict[int, float] = {}
        self._here, self._clock, self._tell, self._evidence = here, here.clock, tell, evidence
        self._faults = list(enumerate(faults))
        self._started: dict[str, int] = defaultdict(int)

    @property
    def ready(self) -> list[Job]:
        """The jobs that may make a step now."""
        return [job for job in self.jobs.values() if self._may_step(job)]

    def end(self) -> None:
        """End all jobs."""
        for job in list(self.jobs.values()):
            self._kill(job)

    def _may_step(self, job: Job) -> bool:
        return job.blocked_at is None and job.resume_at <= self._clock.now

    def start(self, actor: str, op: str, work: Callable[[], None]) -> None:
        """Give a process a job."""
        nth = self._started[op]
        self._started[op] += 1
        job = Job(actor, self._here.actors[actor], op, nth, work)
        self.jobs[actor] = self.last = job
        job.start()
        self._after(job)

    def step(self, job: Job) -> None:
        """Let a job make its next step, or suffer its fault."""
        if self._breaks(job):
            return
        self.last = job
        self.steps += 1
        self._clock.now += STEP_S
        job.go()
        self._after(job)

    def _after(self, job: Job) -> None:
        """Wait until a job stands still, and look whether others that waited for its locks go on."""
        self._settle(job)
        for other in [one for one in self.jobs.values() if one.blocked_at is not None and one is not job]:
            self._settle(other)

    def _settle(self, job: Job) -> None:
        was = job.blocked_at
        job.settle(self._here.sessions.blocked, self._clock.now)
        if job.blocked_at is not None and was is None:
            self._tell(f"{job.actor}: {job.op} waits for a lock after {job.at}")
        if job.over:
            self.jobs.pop(job.actor, None)
            if self.last is job:
                self.last = None
            if job.error is not None and not _is_expected(job.error):
                raise job.error

    def finish(self, actor: str) -> None:
        """Let a job run as far as it can."""
        while (job := self.jobs.get(actor)) is not None and self._may_step(job):
            self.step(job)

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
        self.fault_at[place] = now
        self._evidence.faults.append(FaultSeen(now, now + max(fault.seconds, NOTICED_S), str(fault)))
        self._tell(f"{job.actor}: {fault}, before {job.at}")
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
        for other in [one for one in self.jobs.values() if one.blocked_at is not None and one is not job]:
            self._settle(other)

    def _kill(self, job: Job) -> None:
        """Kill the process of a job. Its message comes again after the visibility time-out."""
        job.dead = True
        if job.blocked_at is not None:
            # Its statement fails, and its thread ends before its next step.
            self._here.sessions.end(job.pid)
        job.kill()
        self.jobs.pop(job.actor, None)
        if self.last is job:
            self.last = None
        self._wake_others(job)

    def look_at_clocks(self) -> None:
        """Bring about the time-outs of PostgreSQL whose time has come."""
        now = self._clock.now
        for job in list(self.jobs.values()):
            if job.blocked_at is not None:
                session = job.sessions.get(job.pid)
                if session is not None and now >= job.blocked_at + session.lock_s:
                    self._tell(f"{job.actor}: {job.op} has waited too long for a lock")
                    job.lock_timed_out = True
                    self._here.sessions.lose_patience(job.pid)
                    self._settle(job)
                continue
            for pid, session in list(job.sessions.items()):
                if now >= session.used_at + session.idle_s:
                    self._tell(f"{job.actor}: {job.op} was idle for too long; PostgreSQL ends its session")
                    self._here.sessions.end(pid)
                    job.sessions.pop(pid)
                    self._wake_others(job)

    def times(self) -> Iterator[float]:
        """Yield when something happens to jobs by itself."""
        for job in self.jobs.values():
            if job.blocked_at is not None:
                session = job.sessions.get(job.pid)
                yield job.blocked_at + (session.lock_s if session else 0)
            else:
                yield job.resume_at
                yield from (session.used_at + session.idle_s for session in job.sessions.values())

    def found_out(self) -> bool:
        """Whether PostgreSQL has ended a statement because of a deadlock, or will at once."""
        blocked = {job.pid: job for job in self.jobs.values() if job.blocked_at is not None}
        if len(blocked) < 2:
            return False
        waits = self._here.sessions.waits(blocked)
        if not all(waits.values()):
            # One of them goes on.
            for pid, before in waits.items():
                if not before:
                    self._settle(blocked[pid])
            return True
        if not any(_meets_itself(pid, waits) for pid in waits):
            return False
        for _ in range(_DEADLOCK_LOOKS):
            for job in blocked.values():
                if job.stands(_DEADLOCK_S):
                    job.stood()
                    self._settle(job)
                    return True
        raise Hung("PostgreSQL does not end a deadlock")


def _meets_itself(pid: int, waits: Mapping[int, Sequence[int]]) -> bool:
    """Whether a session waits for itself, over others."""
    seen: set[int] = set()
    todo = list(waits[pid])
    while todo:
        if (one := todo.pop()) == pid:
            return True
        if one not in seen:
            seen.add(one)
            todo += waits.get(one, ())
    return False


def _is_expected(error: BaseException) -> bool:
    """Whether an error is the product's own, which it recovers from."""
    return isinstance(error, Exception) and not isinstance(
        error, (AssertionError, TypeError, NameError, AttributeError)
    )
