"""Heartbeat files: a probe of a container sees by their age that worker or beat works.

They do not depend on the broker: while a worker waits for its broker, nothing is wrong with the worker, and starting it
again would not help.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from knocktwice_worker.services import services

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds between two touches.
EVERY_S = 5.0
#: A worker whose event loop has stood still for so many seconds does not work any more.
STUCK_S = 60.0


def touch(file: Path | None) -> None:
    """Make a file, or say that it is of now."""
    if file is not None:
        file.touch()


class Pulse:
    """Touches the file of a worker, unless its event loop stands still."""

    def __init__(self) -> None:
        #: When the event loop turned last; ``None`` while there is none, because the broker is awaited.
        self.turned_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="knocktwice-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        if not self._thread.ident:
            self._thread.start()

    def beat(self, file: Path | None) -> None:
        """Touch the file if the worker works."""
        turned_at = self.turned_at
        if turned_at is None or time.monotonic() - turned_at < STUCK_S:
            touch(file)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self.beat(services().settings.heartbeat_file)
            pause.wait(EVERY_S)


_pulse = Pulse()


class Heartbeat(bootsteps.StartStopStep):
    """Watches the event loop of a worker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Note each turn of the event loop from now on."""
        if services().settings.heartbeat_file is None:
            return
        if parent.hub is not None:
            self._turned()
            parent.hub.call_repeatedly(EVERY_S, self._turned)
        _pulse.start()

    def stop(self, parent: Any) -> None:
        """There is no event loop until the broker is back."""
        _pulse.turned_at = None

    close = stop
    terminate = stop

    def _turned(self) -> None:
        _pulse.turned_at = time.monotonic()
