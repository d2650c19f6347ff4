"""The background threads of a worker: roll-ups, webhooks, the brake, pauses that end, counters, and statistics for the
planner.

Any number of workers may run them at once, and the system works without any single one. They are separate from the
dispatcher, so that slow work here cannot delay a countdown.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.brake import guard, watch
from knocktwice_worker.cells import agreement, telling
from knocktwice_worker.counters import totals
from knocktwice_worker.database import table_statistics
from knocktwice_worker.notifications.store import paused
from knocktwice_worker.reporting import rollups
from knocktwice_worker.runtime import budget_alarms, trace_export
from knocktwice_worker.runtime.outage_log import Outage
from knocktwice_worker.services import Services, services
from knocktwice_worker.webhooks import endpoints, events

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two runs of the roll-ups.
_COUNT_EVERY_S = 10.0
#: Seconds between two rounds that close old roll-ups for good and delete old events.
_CLEAN_EVERY_S = 3600.0
#: Seconds between two rounds of webhooks.
_WEBHOOKS_EVERY_S = 1.0
#: Seconds between two looks of the brake at the latest pushes.
_BRAKE_EVERY_S = 5.0
#: Seconds between two times at which the pumping guard merges its old counts: each look reads them all.
_MERGE_EVERY_S = 600.0
#: Seconds between two counts of the receipts of the current hour.
_RECEIPTS_EVERY_S = 60.0
#: Seconds between two looks at the day's budget.
_BUDGET_EVERY_S = 10.0
#: Seconds between two exports of traces.
_TRACES_EVERY_S = 5.0
#: Seconds between two flushes of what was counted.
_FLUSH_EVERY_S = 5.0
#: Seconds between two looks for messages whose pause is over.
_WAKE_EVERY_S = 1.0
#: Seconds between two looks for what other cells must know.
_CELLS_EVERY_S = 1.0
#: Seconds between two checks for tables that have grown.
_ANALYZE_EVERY_S = 3.0
#: Seconds that all threads together have to stop.
_JOIN_S = 10.0
#: How many times longer a thread rests than it works.
_REST = 10


def _roll_ups() -> Callable[[Services], None]:
    closed_at = time.monotonic()

    def turn(here: Services) -> None:
        nonlocal closed_at
        rollups.refresh(here.engine, here.settings.sms_day_zone)
        if time.monotonic() - closed_at > _CLEAN_EVERY_S:
            closed_at = time.monotonic()
            rollups.close(here.engine, here.settings.sms_day_zone)

    return turn


def _webhooks() -> Callable[[Services], None]:
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
        if time.monotonic() - forgot_at > _CLEAN_EVERY_S:
            forgot_at = time.monotonic()
            with here.engine.begin() as conn:
                events.forget(conn, timedelta(days=here.settings.webhook_keep_days))

    return turn


def _brake() -> Callable[[Services], None]:
    cleaned_at = merged_at = time.monotonic()

    def turn(here: Services) -> None:
        nonlocal cleaned_at, merged_at
        pumping = guard.Rules.of(here.settings)
        watch.refresh(here.engine, watch.Rules.of(here.settings))
        guard.refresh(here.engine, pumping)
        if time.monotonic() - merged_at > _MERGE_EVERY_S:
            merged_at = time.monotonic()
            guard.clean(here.engine, pumping)
        if time.monotonic() - cleaned_at > _CLEAN_EVERY_S:
            cleaned_at = time.monotonic()
            watch.clean(here.engine)

    return turn


def _receipts(here: Services) -> None:
    receipt_health.count_current(here.engine)


def _cells(here: Services) -> None:
    if here.neighbours is not None:
        telling.tell(here.engine, here.neighbours)
        agreement.restore(here.neighbours, here.agreement)


def _flush(here: Services) -> None:
    totals.flush(here.redis, here.counters)


def _wake(here: Services) -> None:
    paused.wake(here.engine)


def _analyze(here: Services) -> None:
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
        traces = trace_export.exporting(services().settings.traces_share)
        self._threads = [
            threading.Thread(
                target=self._run, args=(name, turn, pause, self._stop), name=f"knocktwice-{name}", daemon=True
            )
            for name, turn, pause in (
                ("roll-ups", _roll_ups(), _COUNT_EVERY_S),
                ("webhooks", _webhooks(), _WEBHOOKS_EVERY_S),
                ("brake", _brake(), _BRAKE_EVERY_S),
                ("budget", budget_alarms.look, _BUDGET_EVERY_S),
                ("receipts", _receipts, _RECEIPTS_EVERY_S),
                ("pauses", _wake, _WAKE_EVERY_S),
                ("statistics", _analyze, _ANALYZE_EVERY_S),
                ("counters", _flush, _FLUSH_EVERY_S),
                *([("cells", _cells, _CELLS_EVERY_S)] if services().neighbours else []),
                *([("traces", traces, _TRACES_EVERY_S)] if traces else []),
            )
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, parent: Any) -> None:
        """Stop the threads. Work that was not committed is done again by the next worker."""
        self._stop.set()
        until = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    # When the broker is lost the consumer stops its steps, and starts them again afterwards.
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
            # After slow work the thread rests longer, so that it takes no more than a tenth of a busy machine's time.
            stop.wait(max(pause, _REST * (time.monotonic() - began)))
