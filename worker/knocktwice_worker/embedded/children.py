"""Processes of our own: started to die with us, stopped in order, started again when they fall.

On Linux the kernel tells a child that its parent died, however it died. The kernel's "parent" is the *thread* that
started the child, so only the main thread may start one: any other thread could end first and take the child along.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.embedded import launch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: The pause before the first restart; it doubles with each early death.
FIRST_PAUSE = timedelta(seconds=0.5)
#: The longest pause before a restart.
LONGEST_PAUSE = timedelta(seconds=30)
#: A child that lived this long is healthy: its next restart is quick again.
HEALTHY_AFTER = timedelta(seconds=60)
#: The time between two looks of a supervisor at its children.
GLANCE = timedelta(seconds=0.1)


class NotMainThread(KnocktwiceError, RuntimeError):
    """A process was to be started from a thread it might outlive: start it from the main thread."""


class StartFailed(KnocktwiceError):
    """A process does not run: read its log, whose end is in the message.

    Attributes:
        name: which process.
        problem: what happened to it.
        log_tail: the last lines of its log.
    """

    def __init__(self, name: str, problem: str, log_tail: str = "") -> None:
        super().__init__(f"{name} {problem}" + (f"\n{log_tail}" if log_tail else ""))
        self.name = name
        self.problem = problem
        self.log_tail = log_tail


class User(NamedTuple):
    """The user that a process runs as."""

    uid: int
    gid: int


@dataclass
class Child:
    """One process of ours, not running until :meth:`start`.

    It leads a process group of its own, so that Ctrl-C in a terminal reaches only us and we stop everybody in order.

    Attributes:
        name: what to call it in messages.
        argv: the program, as an absolute path, and its arguments.
        log_path: where its output is appended.
        env: its environment; ``None`` for ours.
        cwd: the folder it starts in; ``None`` for ours.
        stop_signal: what asks it to end, on :meth:`stop` and when we die.
        user: whom it runs as; ``None`` for us. Only root may choose.
    """

    name: str
    argv: Sequence[str]
    log_path: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    user: User | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start the process; it is the caller's to find out whether it does its work.

        Raises:
            NotMainThread: this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise NotMainThread(f"start {self.name} from the main thread, it would die with this one")
        user = f"{self.user.uid}:{self.user.gid}" if self.user else "-"
        tether = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(self.stop_signal)), user]
        log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = subprocess.Popen(
                [*tether, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.cwd,
                process_group=0,
            )
        finally:
            os.close(log)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, the last one if it has ended.

        Raises:
            StartFailed: it was never started.
        """
        return self._started.pid

    def wait(self, limit: timedelta) -> int | None:
        """Return its exit code, or ``None`` if it still runs after ``limit``."""
        try:
            return self._started.wait(limit.total_seconds())
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *, limit: timedelta = timedelta(seconds=20), by: signal.Signals | None = None) -> None:
        """Ask it to end and wait; past the ``limit``, kill it. Nothing happens if it does not run.

        Args:
            limit: how long it may take.
            by: the signal that asks, instead of ``stop_signal``.
        """
        if not self.alive:
            return
        self._started.send_signal(by or self.stop_signal)
        if self.wait(limit) is None:
            self.kill()

    def kill(self) -> None:
        """End its whole process group at once, as a power cut would (``kill -9``), and wait for it."""
        if not self.alive:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._started.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines it wrote."""
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartFailed(self.name, "was never started")
        return self._process


class Supervised(Protocol):
    """A process that :func:`supervise` watches: a :class:`Child`, or a server made of one."""

    @property
    def name(self) -> str:
        """The name, for messages to people."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Stop it, in bounded time."""


@dataclass
class _Watch:
    """When to start one child again."""

    child: Supervised
    started_at: float
    pause: timedelta = FIRST_PAUSE
    due_at: float | None = None

    def glance(self, now: float) -> bool:
        """Start the child if it is down and its pause is over; return whether it was."""
        if self.child.alive:
            return False
        if self.due_at is None:
            self._plan(now)
            return False
        if now < self.due_at:
            return False
        self.due_at, self.started_at = None, now
        # Whatever kept it from starting is in its log, and the next pause is longer.
        with suppress(StartFailed):
            self.child.start()
        return True

    def _plan(self, now: float) -> None:
        if now - self.started_at >= HEALTHY_AFTER.total_seconds():
            self.pause = FIRST_PAUSE
        self.due_at = now + self.pause.total_seconds()
        self.pause = min(self.pause * 2, LONGEST_PAUSE)


def supervise(
    children: Sequence[Supervised],
    stop: threading.Event,
    *,
    restarted: Callable[[Supervised], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Start the children in order and keep them running until ``stop`` is set; then stop them, last one first.

    To end it from a signal handler raise an exception there (as Ctrl-C does) instead of setting the event: the handler
    runs inside this very wait and could lock itself out. The children are stopped either way.

    Args:
        children: whom to look after. Those that already run are left running.
        stop: ends the supervision.
        restarted: told of each child that was started again.
        clock: seconds that never go backwards.

    Raises:
        NotMainThread: this is not the main thread.
        StartFailed: a child did not start the first time.
    """
    try:
        for child in children:
            if not child.alive:
                child.start()
        watches = [_Watch(child, clock()) for child in children]
        while not stop.wait(GLANCE.total_seconds()):
            for watch in watches:
                if watch.glance(clock()):
                    restarted(watch.child)
    finally:
        for child in reversed(children):
            child.stop()
