"""Celery's scheduler of beat, which also touches the heartbeat file and announces beat to the fleet."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler

from knocktwice_worker.runtime.announcing import Announcer
from knocktwice_worker.runtime.heartbeat import EVERY_S, touch
from knocktwice_worker.services import services


class BeatScheduler(PersistentScheduler):
    """Starts what is due, and shows that it lives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._announcer: Announcer | None = None
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Start what is due; return the seconds until the next turn, which comes in time for the heartbeat file."""
        touch(services().settings.heartbeat_file)
        if self._announcer is None:
            self._announcer = Announcer("beat", tries=False)
            self._announcer.start()
        return min(EVERY_S, float(super().tick(*args, **kwargs)))

    def close(self) -> None:
        """Leave the fleet."""
        if self._announcer is not None:
            self._announcer.stop()
        super().close()
