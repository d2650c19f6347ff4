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
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog
from celery.concurrency.thread import TaskPool
from celery.utils.imports import symbol_by_name
from celery.worker import state
from celery.worker.request import create_request_cls
from celery.worker.strategy import default
from redis.exceptions import RedisError

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.runtime.private_task import DiscreetTask
from knocktwice_worker.runtime.publishing import AGAIN, REDELIVERED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from celery import Celery
    from celery.worker.request import Request

log = structlog.get_logger(__name__)

#: Groups that one worker processes at once: one is prepared while the other waits for the provider. More groups would
#: only be smaller.
_THREADS = 2
#: Seconds that a thread rests after a group. Without the rest, the next group under load would be small and cost nearly
#: as much as a large one. The rest is shorter than a provider's answer.
_REST_S = 0.1

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


class Pile:
    """Items that wait for a thread.

    Args:
        work: processes a group.
        weigh: returns the size of an item.
        start: runs a function in a thread of the pool.
        threads: the most groups processed at once.
        most: the greatest total weight of a group; a single heavier item goes alone.
        rest_s: seconds that a thread rests after a group. It does not rest if no item waits, or enough for a whole
            group.
        patient: whether a thread also rests before its first group, because nobody waits for the result.
    """

    def __init__(
        self,
        work: Callable[[list[Any]], None],
        weigh: Callable[[Any], int],
        start: Callable[[Callable[[], None]], object],
        *,
        threads: int = _THREADS,
        most: int = BATCH_LIMIT,
        rest_s: float = _REST_S,
        patient: bool = False,
    ) -> None:
        self._work = work
        self._weigh = weigh
        self._start = start
        self._most = most
        self._free = threads
        self._rest_s = rest_s
        self._patient = patient
        #: Whether a thread rests before its first group. It takes what comes meanwhile, so no other thread is started.
        self._collecting = False
        self._lock = threading.Condition()
        self._waiting: deque[tuple[Any, int]] = deque()
        self._piled = 0

    def add(self, item: Any) -> None:
        """Have an item processed, together with the others that wait by then."""
        weight = self._weigh(item)
        with self._lock:
            self._waiting.append((item, weight))
            self._piled += weight
            if not self._free or self._collecting:
                if self._piled >= self._most:
                    self._lock.notify()
                return
            self._free -= 1
            self._collecting = self._patient
        try:
            self._start(self._run)
        except BaseException:
            with self._lock:
                self._free += 1
                self._collecting = False
            raise

    def _run(self) -> None:
        if self._patient:
            self._rest()
            with self._lock:
                self._collecting = False
        while group := self._take():
            try:
                self._work(group)
            except Exception as error:  # noqa: BLE001 - a boundary
                # An error must not leave this loop, or the thread would count as busy for ever. The group's messages
                # are not acknowledged, so they come again.
                log.error("a group was left behind", messages=len(group), error=type(error).__name__)
            self._rest()

    def _rest(self) -> None:
        with self._lock:
            if self._waiting:
                self._lock.wait_for(lambda: self._piled >= self._most, self._rest_s)

    def _take(self) -> list[Any]:
        """Return the next group. If it is empty, this thread counts as free from now on."""
        taken: list[Any] = []
        size = 0
        with self._lock:
            while self._waiting and (not taken or size + self._waiting[0][1] <= self._most):
                item, weight = self._waiting.popleft()
                taken.append(item)
                size += weight
            self._piled -= size
            if not taken:
                self._free += 1
        return taken


def strategy(task: GatheredTask, app: Celery, consumer: Any) -> Callable[..., Any]:
    """Return the function that Celery's consumer calls with each message of a gathered task."""
    alone = default(task, app, consumer)
    if not isinstance(consumer.pool, TaskPool):
        # Tasks of other pools may run in other processes, which do not see the pile.
        return alone  # type: ignore[no-any-return]
    eventer = consumer.event_dispatcher
    make = create_request_cls(symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, eventer, app=app)

    def work(requests: list[Request]) -> None:
        began = time.monotonic()
        for request in requests:
            request.on_accepted(os.getpid(), began)
        # A message may be there twice.
        messages = {request.id: request.args[0] for request in requests}
        try:
            task.together(list(messages.items()))
        except Exception as error:  # noqa: BLE001 - the message that it was about raises it again, alone
            log.info(
                "messages are taken one by one", task=task.name, messages=len(requests), error=type(error).__name__
            )
            for request in requests:
                consumer.on_task_request(request)
            return
        result = (False, None, time.monotonic() - began)
        for request in requests:
            request.on_success(result)

    def work_again(requests: list[Request]) -> None:
        try:
            fit = set(task.begin_again([request.id for request in requests]))
        except RedisError as error:
            log.warning("messages are taken one by one", task=task.name, error=type(error).__name__)
            fit = set()
        if together := [request for request in requests if request.id in fit]:
            work(together)
        for request in requests:
            if request.id not in fit:
                consumer.on_task_request(request)

    def weigh(request: Request) -> int:
        return task.weight(request.args[0])

    pile = Pile(work, weigh, consumer.pool.apply_async, patient=task.patient)
    again_pile = Pile(work_again, weigh, consumer.pool.apply_async, threads=1, patient=task.patient)

    def receive(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        headers = message.headers
        again = headers.get(AGAIN) or (message.delivery_info or {}).get(REDELIVERED)
        if body is not None or any(headers.get(name) for name in _OF_CELERY) or headers["id"] in state.revoked:
            return alone(message, body, ack, reject, callbacks)
        request = make(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=eventer,
            task=task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=headers,
        )
        if len(request.args) != 1 or request.kwargs:
            return alone(message, body, ack, reject, callbacks)
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
        (again_pile if again else pile).add(request)
        return None

    return receive
