"""Announces a process to the fleet, and tries the providers' credentials with the settings that it works with."""

from __future__ import annotations

import os
import socket
import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from sqlalchemy import text

from knocktwice_worker import config
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.fingerprints import fingerprints
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.runtime.outage_log import Outage
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds between two trials of the credentials.
_TRY_EVERY_S = 300.0
#: Seconds that the threads have to stop.
_JOIN_S = 5.0


class Announcer:
    """Three threads: one announces the process and one reads the database's clock every few seconds, one tries
    credentials.

    Each has a thread of its own: a process whose database or provider hangs must not look as if it had gone.

    Args:
        role: ``worker`` or ``beat``.
        queues: the queues that it takes messages from.
        tries: whether it tries credentials.
    """

    def __init__(self, role: str, queues: Sequence[str] = (), *, tries: bool = True) -> None:
        self.name = f"{role}@{socket.gethostname()}:{os.getpid()}"
        self._role, self._queues = role, tuple(queues)
        self._credentials: dict[str, str] = {}
        self._ahead_s: float | None = None
        # Those of the environment. What operators change reaches a process with its next task, so it tells nothing.
        self._settings = config.load()
        self._stop = threading.Event()
        rounds: list[tuple[Callable[[Services], None], float]] = [
            (self._look_at_clock, members.EVERY_S),
            (self._announce, members.EVERY_S),
        ]
        if tries:
            rounds.insert(0, (self._try, _TRY_EVERY_S))
        self._threads = [
            threading.Thread(target=self._run, args=round_, name=f"knocktwice-announce-{role}", daemon=True)
            for round_ in rounds
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and leave the fleet if Redis answers."""
        self._stop.set()
        until = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _run(self, turn: Callable[[Services], None], pause: float) -> None:
        outage = Outage("announcing")
        while not self._stop.is_set():
            try:
                turn(services())
                outage.worked()
            except Exception as error:
                outage.failed(error)
            self._stop.wait(pause)
        if turn == self._announce:
            try:
                members.leave(services().redis, self.name)
            except Exception as error:
                outage.failed(error)

    def _announce(self, here: Services) -> None:
        member = Member(
            self.name,
            self._role,
            metadata.version("knocktwice"),
            self._queues,
            fingerprints(self._settings, secret(self._settings)),
            self._ahead_s,
            dict(self._credentials),
        )
        members.announce(here.redis, member)

    def _look_at_clock(self, here: Services) -> None:
        self._ahead_s = _ahead(here)

    def _try(self, here: Services) -> None:
        self._credentials = tried(here)


def tried(here: Services) -> dict[str, str]:
    """Try the credentials of push and of each channel with a sender; return channel → why they don't work."""
    asked: dict[str, Callable[[], None]] = {"push": here.push.authorize}
    for name in CHANNELS:
        if here.channels[name].sender is not None:
            asked[name] = here.channels.usual(name).authorize
    found = {}
    for name, authorize in asked.items():
        try:
            authorize()
            found[name] = ""
        except CredentialsUnavailable as error:
            found[name] = str(error)
    return found


def _ahead(here: Services) -> float | None:
    """Return how far our clock is ahead of the database's, in seconds."""
    try:
        with here.engine.connect() as conn:
            # The connection and its first use take long, so the time is asked for by itself.
            conn.execute(text("SELECT"))
            before = time.time()
            theirs = conn.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
            return round((before + time.time()) / 2 - float(theirs), 3)
    except Exception:
        return None


class Announce(bootsteps.StartStopStep):
    """Announces a worker while its consumer runs."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._announcer: Announcer | None = None

    def start(self, parent: Any) -> None:
        """Start announcing."""
        self._announcer = Announcer("worker", [queue.name for queue in parent.app.amqp.queues.consume_from.values()])
        self._announcer.start()

    def stop(self, parent: Any) -> None:
        """Stop announcing."""
        if self._announcer is not None:
            self._announcer.stop()
            self._announcer = None

    close = stop
    terminate = stop
