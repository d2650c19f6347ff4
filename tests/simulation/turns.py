"""Turns: many jobs in threads of their own, of which exactly one runs at a time, from one step to the next.

A step is a statement, a commit, a command to Redis, or a call to a provider. A job stands *before* each of them until it
gets its turn. While it stands there it can be left standing for a minute, be killed, or lose its database session.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services

#: After so long (seconds of real time) a statement is looked at: it may wait for a lock. It decides nothing.
_GLANCE_S = 0.004
#: A step that takes longer is a mistake of the simulation: this many glances, on a machine that is busy with other
#: things.
_PATIENCE = 75_000
#: How long a job that was killed may take to end (seconds of real time).
_LONGEST_S = 300.0


class Died(BaseException):
    """The process of this job was killed. Nothing in the product may catch it."""


class Hung(Exception):
    """A step neither ended nor waited for a lock."""


_local = threading.local()
#: Threads without a job; one that has ended a job waits here for the next, as to start one costs more than a step.
_idle: list[_Thread] = []


def current() -> Job | None:
    """Return the job whose thread this is."""
    job: Job | None = getattr(_local, "job", None)
    return job


@dataclass(eq=False)
class Session:
    """An open transaction.

    Attributes:
        idle_s: how long it may be idle before PostgreSQL ends its session.
        used_at: when it was last used, by the simulation's clock.
        lock_s: how long a statement may wait for a lock.
    """

    idle_s: float
    used_at: float
    lock_s: float


@dataclass(eq=False)
class Job:
    """One operation of one process, in a thread of its own.

    Attributes:
        actor: the name of the process.
        here: its services.
        op: what it does, such as ``send_sms``.
        nth: how many jobs of this kind there were before in this run.
        work: does it.
        steps: how many steps it has made.
        at: the step before which it stands.
        resume_at: it is stopped until then; 0: it is not.
        blocked_at: since when it waits for a lock; ``None``: it does not.
        pid: PostgreSQL's process of its last statement.
        sessions: its open transactions by that process.
    """

    actor: str
    here: Services
    op: str
    nth: int
    work: Callable[[], None]
    steps: int = 0
    at: str = "its beginning"
    resume_at: float = 0
    blocked_at: float | None = None
    pid: int = 0
    sessions: dict[int, Session] = field(default_factory=dict)
    lock_timed_out: bool = False
    over: bool = False
    dead: bool = False
    error: BaseException | None = None
    _go: threading.Lock = field(default_factory=threading.Lock)
    _parked: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Let it run to its first step, before which it stands."""
        self._go.acquire()
        self._parked.acquire()
        self._ended.acquire()
        thread = _idle.pop() if _idle else _Thread()
        thread.give(self._run)

    def _run(self) -> None:
        _local.job = self
        try:
            self.work()
        except Died:
            pass
        except BaseException as error:  # noqa: BLE001 - the run looks at it
            self.error = error
        finally:
            _local.job = None
            self.over = True
            self._parked.release()
            self._ended.release()

    def point(self, at: str) -> None:
        """Stand before a step until it is this job's turn. Called in its own thread."""
        if self.dead:
            raise Died
        self.at = at
        self._parked.release()
        self._go.acquire()
        if self.dead:
            raise Died
        self.steps += 1

    def go(self) -> None:
        """Let it make its step."""
        self._go.release()

    def stands(self, wait_s: float = 0) -> bool:
        """Whether it stands before its next step, or is over, within ``wait_s`` of real time."""
        return self._parked.acquire(timeout=wait_s) if wait_s else self._parked.acquire(blocking=False)

    def stood(self) -> None:
        """Take back that :meth:`stands` was told, for :meth:`settle`."""
        self._parked.release()

    def settle(self, blocked: Callable[[int], bool], now: float) -> None:
        """Wait until it stands before its next step, is over, or waits for a lock.

        Whoever releases a lock also gives it to the next, so PostgreSQL knows at once whether a job still waits. That a
        statement was ended it knows a moment later.
        """
        if self.blocked_at is not None and not self.lock_timed_out and blocked(self.pid):
            return
        for _ in range(_PATIENCE):
            if self.stands(_GLANCE_S):
                self.blocked_at, self.lock_timed_out = None, False
                return
            if self.pid and not self.lock_timed_out and blocked(self.pid):
                self.blocked_at = self.blocked_at or now
                return
        raise Hung(f"{self.actor}: {self.op} hangs after {self.at}")

    def kill(self) -> None:
        """End it as ``kill -9`` does, and wait for that. A statement that waits for a lock must be ended before."""
        self.dead = True
        if not self.over:
            self._go.release()
        if not self._ended.acquire(timeout=_LONGEST_S):
            raise Hung(f"{self.actor}: {self.op} cannot be killed at {self.at}")


class _Thread:
    """A thread that does one job after another."""

    def __init__(self) -> None:
        self._work: Callable[[], None] | None = None
        self._given = threading.Lock()
        self._given.acquire()
        threading.Thread(target=self._run, name="simulated processes", daemon=True).start()

    def give(self, work: Callable[[], None]) -> None:
        """Have it do a job."""
        self._work = work
        self._given.release()

    def _run(self) -> None:
        while True:
            self._given.acquire()
            if self._work is not None:
                self._work()
            self._work = None
            _idle.append(self)
