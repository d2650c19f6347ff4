"""One run of the full pipeline, ours or the textbook's, fed and timed in exactly the same way.

The feeder keeps the queue short and full, as an application with much to say would, and confirms every second push soon
after it was made. So half of the notifications end with a receipt and half with an SMS. The rate is counted
in the database, over the time in which everything is under way at once: from the first SMS until the last notification was
handed over.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import sqlalchemy as sa

from benchmarks import textbook
from benchmarks.installation import PEOPLE, WORKERS, Installation
from benchmarks.meter import Spent, measure
from knocktwice import Client, Push, ReceiptEvent, Recipient, Sms
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt
from knocktwice_shared.names import BATCH_LIMIT, INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knocktwice_worker.embedded.children import Child

#: How often the feeder looks whether there is room for more, in seconds; a look costs it more than handing over.
_LOOK_S = 0.01
#: How long a push gets before its SMS.
COUNTDOWN = timedelta(seconds=3)
_PUSH = Push("Order {{ order }} is ready", "Hi {{ name }}, pick it up before 19:45.")
_SMS = Sms("Hi {{ name }}, your order {{ order }} is ready.", after=COUNTDOWN)

_orders = itertools.count()


@dataclass(frozen=True)
class Result:
    """What a run showed.

    Attributes:
        count: notifications.
        per_s: rate while everything was under way.
        total_s: from the first call to the last outcome, the countdown included.
        texted: share that ended with an SMS.
    """

    count: int
    per_s: float
    total_s: float
    texted: float
    spent: Spent

    @property
    def cpu_us(self) -> float:
        """Worker CPU per notification."""
        return self.spent.cpu_us("workers", self.count)


class Contestant(Protocol):
    """A pipeline that can be fed."""

    #: Notifications handed over in one go, and how many of those may wait to be pushed.
    portion: int
    most_waiting: int
    workers: list[Child]

    def submit(self) -> list[str]:
        """Hand over one portion; return the ids."""

    def confirm(self, ids: Sequence[str]) -> None:
        """Report pushes as delivered."""

    def waiting(self) -> int:
        """Portions that were handed over and are not pushed yet."""

    def ended(self) -> int:
        """How many notifications have ended since the run began."""

    def ends(self) -> Sequence[tuple[float, str]]:
        """Time (epoch seconds) and state of each of these ends."""


def run(here: Installation, contestant: Contestant, count: int) -> Result:
    """Take ``count`` notifications all the way."""
    with measure(here.roles(contestant.workers)) as spent:
        started = time.time()
        handed_over = _feed(contestant, count // contestant.portion)
        # The ends carry their times, so looking seldom changes no rate; looking often was a quarter of PostgreSQL's work.
        here.wait(lambda: contestant.ended() >= count, contestant.workers, every_s=1)
    ends = contestant.ends()
    return Result(
        count=count,
        per_s=_rate([at for at, _ in ends], started + COUNTDOWN.total_seconds() + 1, handed_over),
        total_s=max(at for at, _ in ends) - started,
        texted=sum(state == "texted" for _, state in ends) / count,
        spent=spent,
    )


def _feed(contestant: Contestant, portions: int) -> float:
    """Hand over all portions; return when the last one was."""
    unconfirmed: deque[list[str]] = deque()
    for _ in range(portions):
        while contestant.waiting() >= contestant.most_waiting:
            time.sleep(_LOOK_S)
        unconfirmed.append(contestant.submit()[::2])
        while len(unconfirmed) > contestant.most_waiting:
            contestant.confirm(unconfirmed.popleft())
    end = time.time()
    while unconfirmed:
        while contestant.waiting() >= len(unconfirmed):
            time.sleep(_LOOK_S)
        contestant.confirm(unconfirmed.popleft())
    return end


def _rate(ends: Sequence[float], start: float, end: float) -> float:
    if end - start < 1:
        # Too short to have a middle.
        return len(ends) / (max(ends) - min(ends))
    return sum(start <= at < end for at in ends) / (end - start)


class _Ends:
    """The ends since now of what a table of notifications holds."""

    def __init__(self, database_url: str, table: str) -> None:
        self._engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        self._table = sa.table(table, sa.column("state"), sa.column("finished_at"))
        self._new = self._table.c.finished_at >= sa.func.to_timestamp(time.time())

    def ended(self) -> int:
        """See :class:`Contestant`."""
        with self._engine.connect() as conn:
            return conn.execute(sa.select(sa.func.count()).select_from(self._table).where(self._new)).scalar_one()

    def ends(self) -> Sequence[tuple[float, str]]:
        """See :class:`Contestant`."""
        query = sa.select(sa.extract("epoch", self._table.c.finished_at), self._table.c.state).where(self._new)
        with self._engine.connect() as conn:
            return [(float(at), str(state)) for at, state in conn.execute(query)]


class Ours(_Ends):
    """knocktwice, fed in batches or by single calls."""

    def __init__(
        self, here: Installation, database_url: str, workers: list[Child], client: Client, portion: int
    ) -> None:
        super().__init__(database_url, "notifications")
        self.workers = workers
        self.portion = portion
        self.most_waiting = 8 if portion == BATCH_LIMIT else 400
        self._redis = here.redis
        self._client = client

    def submit(self) -> list[str]:
        """See :class:`Contestant`."""
        recipients = [
            Recipient(user=f"user-{order % PEOPLE}", params={"name": "Ana", "order": order})
            for order in itertools.islice(_orders, self.portion)
        ]
        if self.portion > 1:
            return [str(i) for i in self._client.notify_many(recipients, push=_PUSH, sms=_SMS)]
        (one,) = recipients
        return [str(self._client.notify(user=one.user, params=one.params, push=_PUSH, sms=_SMS))]

    def confirm(self, ids: Sequence[str]) -> None:
        """See :class:`Contestant`."""
        if self.portion > 1:
            self._client.record_receipts([ReceiptEvent(UUID(i), Receipt.DELIVERED, datetime.now(UTC)) for i in ids])
        elif int(ids[0][-1], 16) % 2:
            self._client.record_delivered(ids[0])

    def waiting(self) -> int:
        """See :class:`Contestant`. What a worker has taken from the queue and not pushed yet counts, too."""
        return int(self._redis.hlen(INBOX_MESSAGES))


class Textbook(_Ends):
    """The textbook, fed by single calls, which is all it has."""

    portion = 1
    most_waiting = 40

    def __init__(self, here: Installation, database_url: str, workers: list[Child]) -> None:
        super().__init__(database_url, "textbook_notifications")
        self.workers = workers
        self._redis = here.redis

    def submit(self) -> list[str]:
        """See :class:`Contestant`."""
        id_, order = str(uuid7()), next(_orders)
        body = f"Hi Ana, your order {order} is ready."
        textbook.send_push.delay(id_, f"user-{order % PEOPLE}", f"Order {order} is ready", body)
        return [id_]

    def confirm(self, ids: Sequence[str]) -> None:
        """See :class:`Contestant`."""
        if int(ids[0][-1], 16) % 2:
            textbook.record_delivered.delay(ids[0])

    def waiting(self) -> int:
        """See :class:`Contestant`."""
        return int(self._redis.llen("textbook"))


def ours(
    here: Installation,
    *,
    url: str,
    count: int,
    rounds: int,
    portion: int,
    database_url: str,
    withdraw: bool = False,
) -> Iterator[Result]:
    """Run knocktwice several times.

    Args:
        withdraw: whether an SMS takes its push off the screen, by one more push; the textbook does not.
    """
    env = here.environment(database_url, url) | {"KNOCKTWICE_WITHDRAW": str(withdraw)}
    here.empty_the_broker()
    with here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers, Client(here.broker_url) as client:
        # Connections, credentials and compiled templates are made in the first second of a worker's life.
        run(here, Ours(here, database_url, workers, client, portion), 2 * WORKERS * 8 * portion)
        for _ in range(rounds):
            yield run(here, Ours(here, database_url, workers, client, portion), count)


def the_textbook(here: Installation, *, url: str, count: int, rounds: int) -> Iterator[Result]:
    """Run the textbook several times."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    textbook.Base.metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO textbook_people (id, token, phone) SELECT p.user_id, d.registration, p.number "
                "FROM phones p JOIN devices d USING (user_id)"
            )
        )
    env = here.environment(database_url, url) | {"TEXTBOOK_COUNTDOWN_S": str(COUNTDOWN.total_seconds())}
    here.empty_the_broker()
    textbook.app.conf.broker_url = here.broker_url
    with here.workers("benchmarks.textbook", "--pool", "prefork", "--concurrency", str(WORKERS), env=env) as workers:
        run(here, Textbook(here, database_url, workers), 20)
        for _ in range(rounds):
            yield run(here, Textbook(here, database_url, workers), count)
