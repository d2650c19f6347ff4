"""Gathering: many small messages are processed as one batch.

A batch of one message costs nearly as much as a batch of a hundred: the same queries, the same commits, the same wait
for the provider. So messages of a *gathered* task do not go to Celery's pool one by one. They wait in a pile, and one
of a few threads takes the whole pile. While a thread is free, a single message goes at once, unless the task is
*patient*. After a group a thread rests for a moment and lets the next group grow, so the batches grow with the load.
Each message is acknowledged when its own work is done, and Flower shows each as a task.

If a group fails, each of its messages goes Celery's usual way, alone and with its own error.

A message that comes again may be the one that ended its worker, so it waits in a pile of its own and takes along only
others that come again, and only once: what is begun there is noted first, and whatever was begun and has not ended goes
alone. After an outage thousands come again, and one by one they would take hours.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from celery.concurrency.thread import TaskPool
from celery.utils.imports import symbol_by_name
from celery.worker import state
from celery.worker.request import create_request_cls
from celery.worker.strategy import default
from redis.exceptions import RedisError

from knocktwice_worker.runtime.pile import Pile
from knocktwice_worker.runtime.private_task import DiscreetTask
from knocktwice_worker.runtime.publishing import AGAIN, REDELIVERED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from celery import Celery
    from celery.worker.request import Request

log = structlog.get_logger(__name__)

#: Headers of messages that only Celery's own code can handle: a task for later, one that expires, one of a workflow.
_OF_CELERY = ("eta", "expires", "group")


class GatheredTask(DiscreetTask):
    """A task whose messages are processed together. The attributes are set where the task is made.

    Attributes:
        together: processes many messages, given as ``(id, message)``; a repeat is safe, also of a part of them.
        begin_again: notes that work begins on messages that came again, and returns the ids of those that may go
            together.
        weight: returns the size of a message, in notifications or receipts; never raises, whatever the message is.
        patient: a single message waits a moment for others, even while a thread is free.
    """

    abstract = True
    Strategy = "knocktwice_worker.runtime.gathering:strategy"

    together: Callable[[Sequence[tuple[str, object]]], None]
    begin_again: Callable[[Sequence[str]], Collection[str]]
    weight: Callable[[object], int]
    patient: bool = False


def strategy(task: GatheredTask, app: Celery, consumer: Any) -> Callable[..., Any]:
    """Return the function that Celery's consumer calls with each message of a gathered task."""
    alone = default(task, app, consumer)
    if not isinstance(consumer.pool, TaskPool):
        # Tasks of other pools may run in other processes, which do not see the pile.
        return alone  # type: ignore[no-any-return]
    return _Reception(task, app, consumer, alone).receive


class _Reception:
    """Receives the messages of one gathered task for one consumer.

    Args:
        task, app, consumer: as Celery gives them.
        alone: Celery's own way to receive a message.
    """

    def __init__(self, task: GatheredTask, app: Celery, consumer: Any, alone: Callable[..., Any]) -> None:
        self._task = task
        self._consumer = consumer
        self._alone = alone
        pool, eventer = consumer.pool, consumer.event_dispatcher
        make = create_request_cls(symbol_by_name(task.Request), task, pool, consumer.hostname, eventer, app=app)
        self._request = partial(make, app=app, hostname=consumer.hostname, eventer=eventer, task=task)
        self._pile = Pile(self._work, self._weigh, pool.apply_async, patient=task.patient)
        self._again = Pile(self._work_again, self._weigh, pool.apply_async, threads=1, patient=task.patient)

    def receive(self, message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        """Put a message on a pile; what only Celery's own code can handle goes Celery's way."""
        headers = message.headers
        if body is not None or any(headers.get(name) for name in _OF_CELERY) or headers["id"] in state.revoked:
            return self._alone(message, body, ack, reject, callbacks)
        request = self._request(
            message,
            on_ack=ack,
            on_reject=reject,
            connection_errors=self._consumer.connection_errors,
            body=message.body,
            headers=headers,
        )
        if len(request.args) != 1 or request.kwargs:
            return self._alone(message, body, ack, reject, callbacks)
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=request.root_id,
            parent_id=request.parent_id,
            retries=0,
        )
        state.task_reserved(request)
        for callback in callbacks or ():
            callback(request)
        again = headers.get(AGAIN) or (message.delivery_info or {}).get(REDELIVERED)
        (self._again if again else self._pile).add(request)
        return None

    def _weigh(self, request: Request) -> int:
        return self._task.weight(request.args[0])

    def _work(self, requests: list[Request]) -> None:
        began = time.monotonic()
        for request in requests:
            request.on_accepted(os.getpid(), began)
        # A message may be there twice.
        messages = {request.id: request.args[0] for request in requests}
        try:
            self._task.together(list(messages.items()))
        except Exception as error:  # noqa: BLE001 - the message that it was about raises it again, alone
            name, count = self._task.name, len(requests)
            log.info("messages are taken one by one", task=name, messages=count, error=type(error).__name__)
            for request in requests:
                self._consumer.on_task_request(request)
            return
        result = (False, None, time.monotonic() - began)
        for request in requests:
            request.on_success(result)

    def _work_again(self, requests: list[Request]) -> None:
        try:
            fit = set(self._task.begin_again([request.id for request in requests]))
        except RedisError as error:
            log.warning("messages are taken one by one", task=self._task.name, error=type(error).__name__)
            fit = set()
        if together := [request for request in requests if request.id in fit]:
            self._work(together)
        for request in requests:
            if request.id not in fit:
                self._consumer.on_task_request(request)
