"""The dispatcher: publishes the tasks of rows that are due. One thread in every worker; none is a single point of failure.

A row's ``wake_at`` says when a worker must look at the row again: at the end of a fallback's countdown, for a retry, or when
the lease of a worker that may have died is over. The dispatcher claims such rows, whatever the reason, and publishes the task
that fits their state. It also sweeps the inbox. Any number of dispatchers may run at once: a row is claimed by one of them.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from knocktwice_shared.names import BATCH_LIMIT, Queue, Task
from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.runtime import publishing
from knocktwice_worker.runtime.outage_log import Outage
from knocktwice_worker.services import Services, services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

#: Ticks between two looks into the inbox.
_SWEEP_EVERY = 10

#: With so many messages in the queues no more later steps are claimed. A message that waits in a queue for longer than its
#: lease is published a second time, so a million rows that are due at once would fill the queues with repeats. They wait in
#: Postgres instead.
_MOST_WAITING = 40

#: How long to wait after a tick that failed, in seconds.
_STUMBLED_S = 1.0

_SMS_TASKS = {
    DeliveryState.SCHEDULED: Task.CHECK_FALLBACK,
    DeliveryState.RESERVED: Task.SEND_SMS,
    DeliveryState.SENDING: Task.RECONCILE,
}


def dispatch(here: Services, publish: Callable[[Task, Sequence[str]], None]) -> int:
    """Claim one batch of due rows and publish their tasks.

    Args:
        publish: called with a task and the notification ids it is for.

    Returns:
        How many rows were due; a full batch means that there may be more.
    """
    # The broker is asked before anything is claimed. Without a broker the rows stay unclaimed, and are due as soon as it is back.
    room = sum(here.redis.llen(queue) for queue in (Queue.FALLBACK, Queue.SMS)) < _MOST_WAITING
    with here.engine.begin() as conn:
        rows = store.ring(conn, limit=BATCH_LIMIT, lease=here.settings.lease, later_steps=room)
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
        """Stop the thread. A row that was claimed and not published is due again after its lease."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=10)

    # When the broker is lost the consumer stops its steps, and starts them again afterwards.
    close = stop
    terminate = stop

    def _run(self, app: Celery) -> None:
        publish = partial(publishing.publish, app)
        publish_message = partial(publishing.publish_message, app)
        ticks, outage = 0, Outage("dispatcher")
        while not self._stop.is_set():
            pause = services().settings.tick_s
            try:
                here = services()
                if ticks % _SWEEP_EVERY == 0:
                    here.inbox.sweep(publish_message)
                here.expansion.ring(publish)
                while not self._stop.is_set() and dispatch(here, publish) == BATCH_LIMIT:
                    pass
                outage.worked()
            except Exception as error:
                outage.failed(error)
                pause = max(pause, _STUMBLED_S)
            ticks += 1
            self._stop.wait(pause)
