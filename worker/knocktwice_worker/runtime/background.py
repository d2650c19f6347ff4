"""What every worker does besides its tasks: counting, telling the application, and minding PostgreSQL's statistics.

Any number of workers may do it at once; none is indispensable. It stands apart from the dispatcher, so that nothing here can
hold up a countdown.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.database import table_statistics
from knocktwice_worker.reporting import rollups
from knocktwice_worker.runtime.outage_log import Outage
from knocktwice_worker.services import Services, services
from knocktwice_worker.webhooks import endpoints, events

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks for what has changed, and between two looks for what is closed for ever.
_COUNT_EVERY_S, _CLOSE_EVERY_S = 10.0, 3600.0
#: Seconds between two looks for what is to be told, and between two looks for tables that have grown.
_TELL_EVERY_S, _STATISTICS_EVERY_S = 1.0, 3.0
#: How much longer to rest than to work.
_REST = 10


def _count() -> Callable[[Services], None]:
    closed_at = time.monotonic()

    def turn(here: Services) -> None:
        nonlocal closed_at
        rollups.refresh(here.engine, here.settings.sms_day_zone)
        if time.monotonic() - closed_at > _CLOSE_EVERY_S:
            closed_at = time.monotonic()
            rollups.close(here.engine, here.settings.sms_day_zone)

    return turn


def _tell() -> Callable[[Services], None]:
    forgot_at, declared = time.monotonic(), False

    def turn(here: Services) -> None:
        nonlocal forgot_at, declared
        if not declared:
            with here.engine.begin() as conn:
                endpoints.declare(conn, here.settings.webhook_urls, private=here.settings.webhook_private)
            declared = True
        events.follow(here.engine)
        while here.webhooks.send():
            pass
        if time.monotonic() - forgot_at > _CLOSE_EVERY_S:
            forgot_at = time.monotonic()
            with here.engine.begin() as conn:
                events.forget(conn, timedelta(days=here.settings.webhook_keep_days))

    return turn


def _mind_statistics(here: Services) -> None:
    table_statistics.refresh(here.engine)


class Background(bootsteps.StartStopStep):
    """The threads, started and stopped with the worker's consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, parent: Any) -> None:
        """Start the threads."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._run, args=(name, turn, pause, self._stop), name=f"knocktwice-{name}", daemon=True
            )
            for name, turn, pause in (
                ("numbers", _count(), _COUNT_EVERY_S),
                ("webhooks", _tell(), _TELL_EVERY_S),
                ("statistics", _mind_statistics, _STATISTICS_EVERY_S),
            )
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, parent: Any) -> None:
        """Stop; what was not committed is done again by whoever comes next."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    # The broker was lost: the consumer restarts and starts us again.
    close = stop
    terminate = stop

    def _run(self, name: str, turn: Callable[[Services], None], pause: float, stop: threading.Event) -> None:
        outage = Outage(name)
        while not stop.is_set():
            began = time.monotonic()
            try:
                turn(services())
                outage.worked()
            except Exception as error:
                outage.failed(error, str(error) if isinstance(error, InvalidMessage) else None)
            # What takes long is done less often, so that it never takes more than a small share of a busy machine.
            stop.wait(max(pause, _REST * (time.monotonic() - began)))
