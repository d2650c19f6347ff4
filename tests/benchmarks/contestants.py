"""The pipelines that are measured side by side: how each is fed, and how its ends are counted."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from benchmarks import textbook
from benchmarks.installation import PEOPLE, Installation
from knocktwice import Client, Push, ReceiptEvent, Recipient, Sms
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt
from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from knocktwice_worker.embedded.children import Child

#: How often the feeder looks whether there is room for more, in seconds; a look costs it more than handing over.
_LOOK_S = 0.01
#: How long a push gets before its SMS.
COUNTDOWN = timedelta(seconds=3)
#: Threads of an application that makes single calls, and its calls between two looks at the queue.
_CALLERS, _CALLS = 32, 256
_PUSH = Push("Order {{ order }} is ready", "Hi {{ name }}, pick it up before 19:45.")
_SMS = Sms("Hi {{ name }}, your order {{ order }} is ready.", after=COUNTDOWN)

_orders = itertools.count()


@dataclass(frozen=True)
class Fed:
    """How the feeding went.

    Attributes:
        until: when the last notification was handed over, in epoch seconds.
        cpu_s: CPU of the application's calls; its looks at the queue are ours and not counted.
    """

    until: float
    cpu_s: float


class Contestant(Protocol):
    """A pipeline that can be fed."""

    workers: list[Child]

    def feed(self, count: int) -> Fed:
        """Hand over notifications, with a short and full queue, and report every second push as delivered."""

    def ended(self) -> int:
        """How many notifications have ended since the run began."""

    def times(self) -> Sequence[tuple[float, float, str]]:
        """Return acceptance and end (epoch seconds) and the state of each notification since the run began."""


class Rows:
    """The notifications since now in a table, whose ends carry their times."""

    def __init__(self, database_url: str, table: str) -> None:
        self._engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        self._table = sa.table(table, sa.column("state"), sa.column("created_at"), sa.column("finished_at"))
        self._new = self._table.c.finished_at >= sa.func.to_timestamp(time.time())

    def ended(self) -> int:
        """See :class:`Contestant`."""
        with self._engine.connect() as conn:
            return conn.execute(sa.select(sa.func.count()).select_from(self._table).where(self._new)).scalar_one()

    def times(self) -> Sequence[tuple[float, float, str]]:
        """See :class:`Contestant`."""
        accepted, ended = (sa.extract("epoch", self._table.c[name]) for name in ("created_at", "finished_at"))
        with self._engine.connect() as conn:
            found = conn.execute(sa.select(accepted, ended, self._table.c.state).where(self._new))
            return [(float(a), float(e), str(state)) for a, e, state in found]


class Ours(Rows):
    """knocktwice, fed in batches of many, or by single calls of many threads, as a web application makes them."""

    def __init__(
        self, here: Installation, database_url: str, workers: list[Child], client: Client, portion: int
    ) -> None:
        super().__init__(database_url, "notifications")
        self.workers = workers
        self._portion = portion
        self._redis = here.redis
        self._client = client

    def feed(self, count: int) -> Fed:
        """See :class:`Contestant`."""
        return self._batches(count // self._portion) if self._portion > 1 else self._singles(count)

    def _batches(self, portions: int) -> Fed:
        unconfirmed: deque[list[UUID]] = deque()
        cpu = 0.0

        def confirm() -> float:
            start = time.thread_time()
            now = datetime.now(UTC)
            self._client.record_receipts([ReceiptEvent(i, Receipt.DELIVERED, now) for i in unconfirmed.popleft()])
            return time.thread_time() - start

        for _ in range(portions):
            self._wait_for_less_than(8)
            start = time.thread_time()
            recipients = [
                Recipient(user=f"user-{order % PEOPLE}", params={"name": "Ana", "order": order})
                for order in itertools.islice(_orders, self._portion)
            ]
            unconfirmed.append(self._client.notify_many(recipients, push=_PUSH, sms=_SMS)[::2])
            cpu += time.thread_time() - start
            if len(unconfirmed) > 8:
                cpu += confirm()
        end = time.time()
        while unconfirmed:
            self._wait_for_less_than(len(unconfirmed))
            cpu += confirm()
        return Fed(end, cpu)

    def _singles(self, count: int) -> Fed:
        calls = iter(range(count))
        pushed: deque[UUID] = deque()
        spent: list[float] = []
        turn = threading.Lock()

        def call() -> None:
            start = time.thread_time()
            while True:
                with turn:
                    if next(calls, None) is None:
                        break
                    order = next(_orders)
                    due = pushed.popleft() if len(pushed) > 2 * _CALLS else None
                made = self._client.notify(
                    user=f"user-{order % PEOPLE}", params={"name": "Ana", "order": order}, push=_PUSH, sms=_SMS
                )
                if order % 2:
                    pushed.append(made)
                if due is not None:
                    self._client.record_delivered(due)
                if order % _CALLS == 0:
                    spent.append(time.thread_time() - start)
                    with turn:
                        self._wait_for_less_than(2 * _CALLS)
                    start = time.thread_time()
            spent.append(time.thread_time() - start)

        def confirm() -> None:
            start = time.thread_time()
            while True:
                with turn:
                    due = pushed.popleft() if pushed else None
                if due is None:
                    break
                self._client.record_delivered(due)
            spent.append(time.thread_time() - start)

        _in_threads(call)
        end = time.time()
        self._wait_for_less_than(_CALLS)
        _in_threads(confirm)
        return Fed(end, sum(spent))

    def _wait_for_less_than(self, most: int) -> None:
        """Wait for room. What a worker has taken from the queue and not pushed yet counts, too."""
        while self.waiting() >= most:
            time.sleep(_LOOK_S)

    def waiting(self) -> int:
        """How many messages were accepted and are not carried out yet."""
        return int(self._redis.hlen(INBOX_MESSAGES))


def _in_threads(work: object) -> None:
    threads = [threading.Thread(target=work) for _ in range(_CALLERS)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Textbook(Rows):
    """The textbook, fed by single calls, which is all it has."""

    def __init__(self, here: Installation, database_url: str, workers: list[Child]) -> None:
        super().__init__(database_url, textbook.Notification.__tablename__)
        self.workers = workers
        self._redis = here.redis

    def feed(self, count: int) -> Fed:
        """See :class:`Contestant`."""
        cpu, pushed = 0.0, deque[str]()
        for _ in range(count):
            self._wait_for_less_than(40)
            start = time.thread_time()
            id_, order = str(uuid7()), next(_orders)
            body = f"Hi Ana, your order {order} is ready."
            textbook.send_push.delay(id_, f"user-{order % PEOPLE}", f"Order {order} is ready", body)
            if order % 2:
                pushed.append(id_)
            if len(pushed) > 20:
                textbook.record_delivered.delay(pushed.popleft())
            cpu += time.thread_time() - start
        end = time.time()
        self._wait_for_less_than(1)
        start = time.thread_time()
        for id_ in pushed:
            textbook.record_delivered.delay(id_)
        return Fed(end, cpu + time.thread_time() - start)

    def _wait_for_less_than(self, most: int) -> None:
        while int(self._redis.llen("textbook")) >= most:
            time.sleep(_LOOK_S)


class Peer(Rows):
    """A pipeline of another library, in the textbook's tables. Its program feeds itself: ``PROGRAM feed COUNT``."""

    def __init__(self, database_url: str, workers: list[Child], program: Sequence[str], env: Mapping[str, str]) -> None:
        super().__init__(database_url, textbook.Notification.__tablename__)
        self.workers = workers
        self._program = program
        self._env = env

    def feed(self, count: int) -> Fed:
        """See :class:`Contestant`."""
        made = subprocess.run(
            [*self._program, "feed", str(count)],
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(made.stderr[-2000:])
        said = json.loads(made.stdout)
        return Fed(said["until"], said["cpu_s"])
