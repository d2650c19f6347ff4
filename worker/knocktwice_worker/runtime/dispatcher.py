"""The dispatcher: publishes the tasks of rows that are due. Each worker runs one thread of it, so any worker may fail.

A row's ``wake_at`` says when a worker must look at the row again: at the end of a countdown, for a retry, or when the
lease of a worker that may have died is over. The dispatcher claims such rows, whatever the reason, and publishes the
task that fits their state. It also sweeps the inbox. Any number of dispatchers may run at once, because each row is
claimed by only one of them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from knocktwice_shared.names import BATCH_LIMIT, Queue, Task
from knocktwice_worker.counters.counters import Span
from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox.accepted import SWEEP_LIMIT
from knocktwice_worker.runtime import publishing
from knocktwice_worker.runtime.outage_log import Outage
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from celery import Celery

#: Ticks between two sweeps of the inbox.
_SWEEP_EVERY = 10
#: Sweeps one after the other while each is full: after an outage of RabbitMQ alone, all that was accepted meanwhile
#: waits in the inbox. Due rows wait behind them.
_MOST_SWEEPS = 20

#: With this many messages in the queues, no more later steps are claimed. A million rows that are due at once would
#: fill the queues, and each message that waits there for longer than its lease would be published again. So the rows
#: wait in Postgres.
_MOST_WAITING = 40

#: How far before the place of the last look the next one begins: for rows that were locked, or were committed later
#: than they became due. The shorter span holds while looks are slow.
_NEAR, _NEARER = timedelta(minutes=1), timedelta(seconds=5)
#: A look that took longer was slow, in seconds.
_SLOW_S = 0.1
#: Seconds between two looks that go back as far as there is anything: so many times as long as such a look took, within
#: these bounds.
_REST, _SOONEST_S, _LATEST_S = 20, 15.0, 60.0

#: Seconds to wait after a tick that failed.
_STUMBLED_S = 1.0

_SMS_TASKS = {
    DeliveryState.SCHEDULED: Task.CHECK_FALLBACK,
    DeliveryState.RESERVED: Task.SEND_SMS,
    DeliveryState.SENDING: Task.RECONCILE,
}


class Horizon:
    """How far back a dispatcher looks for due rows: to where its last look came to, and a minute further.

    A look without a bound passes everything that PostgreSQL could not remove from the index yet. While some session
    keeps an old snapshot, that is each time at which any row was due since then: millions, and seconds for each look,
    in which nothing is dispatched. So only some looks have no bound, and the longer they take the fewer. They find the
    rows that were locked for longer than a minute. While looks are slow, the others go back a few seconds only.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._place: datetime | None = None
        self._all_at = 0.0
        self._slow = False
        self._began = 0.0
        self._bounded = False

    def next(self) -> datetime | None:
        """Return since when the rows became due that the next look is for; ``None``: whenever."""
        self._began = self._clock()
        self._bounded = self._place is not None and self._began < self._all_at
        if self._place is None or not self._bounded:
            return None
        return self._place - (_NEARER if self._slow else _NEAR)

    def saw(self, rows: Sequence[store.Rung], now: datetime, *, all_kinds: bool) -> None:
        """Take notice of what a look found. After a look that failed the next one begins at the same place.

        Args:
            now: when it was, by the database's clock.
            all_kinds: it was not for pushes only.
        """
        ended = self._clock()
        took = ended - self._began
        if not self._bounded:
            self._all_at = ended + min(max(_REST * took, _SOONEST_S), _LATEST_S)
            self._slow = False
        self._slow = self._slow or took > _SLOW_S
        if all_kinds:
            # The rows come in the order in which they became due. Behind a full batch there may be more.
            full = len(rows) >= BATCH_LIMIT
            self._place = now - timedelta(seconds=min(row.late_s for row in rows)) if full else now


def dispatch(here: Services, publish: Callable[[Task, Sequence[str]], None], horizon: Horizon | None = None) -> int:
    """Claim one batch of due rows and publish their tasks.

    Args:
        publish: called with a task and its notification ids.
        horizon: how far back to look; ``None``: without a bound.

    Returns:
        The number of rows that were due; after a full batch there may be more.
    """
    # The broker is asked before any row is claimed. If it is down, the rows stay unclaimed and are due as soon as it is
    # back.
    waiting = here.queues.lengths()
    room = waiting[Queue.FALLBACK] + waiting[Queue.SMS] < _MOST_WAITING
    with here.engine.begin() as conn:
        since = None if horizon is None else horizon.next()
        rows, now = store.ring(conn, limit=BATCH_LIMIT, lease=here.settings.lease, later_steps=room, since=since)
    if horizon is not None:
        horizon.saw(rows, now, all_kinds=room)
    here.counters.took(Span.TIMER_LATENESS, max((row.late_s for row in rows), default=0.0), len(rows))
    work: dict[Task, list[str]] = defaultdict(list)
    for row in rows:
        task = Task.RESUME_PUSH if row.step == 0 else _SMS_TASKS[DeliveryState(row.state)]
        work[task].append(str(row.notification_id))
    for task, ids in work.items():
        publish(task, ids)
    return len(rows)


class Dispatcher(bootsteps.StartStopStep):
    """The thread, started and stopped with the worker's consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:
        """Start the thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(parent.app,), name="knocktwice-dispatcher", daemon=True)
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Stop the thread. A row that was claimed but not published is due again after its lease."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=10)

    # When the broker is lost, the consumer stops its steps; it starts them again when the broker is back.
    close = stop
    terminate = stop

    def _run(self, app: Celery) -> None:
        publish = partial(publishing.publish, app)
        publish_again = partial(publishing.publish_message, app)
        publish_first = partial(publishing.publish_message, app, again=False)
        ticks, outage, horizon = 0, Outage("dispatcher"), Horizon()
        while not self._stop.is_set():
            pause = services().settings.tick_s
            try:
                here = services()
                if ticks % _SWEEP_EVERY == 0:
                    for _ in range(_MOST_SWEEPS):
                        if self._stop.is_set() or here.inbox.sweep(publish_again, publish_first) < SWEEP_LIMIT:
                            break
                    here.clock_watch.look()
                here.expansion.ring(publish)
                while not self._stop.is_set() and dispatch(here, publish, horizon) == BATCH_LIMIT:
                    pass
                outage.worked()
            except Exception as error:
                outage.failed(error)
                pause = max(pause, _STUMBLED_S)
            ticks += 1
            self._stop.wait(pause)
