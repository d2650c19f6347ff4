"""An outbox: messages are rows in the application's database, committed with its transaction, and published later.

from knocktwice.outbox import OutboxClient

with Session(engine) as session, session.begin():
    session.add(Order(...))
    OutboxClient(session).notify(user="u-17", push=Push("Thank you", "Your order is in."), key="order-4711")

If the transaction is rolled back, nobody is notified; if it is committed, everybody is, whatever happens to the broker.
A :class:`Relay` (``knocktwice outbox relay``) publishes the rows in their order, each at least once. Ids are made when
the row is written, so a row that is published twice notifies nobody twice.

The database is PostgreSQL, through SQLAlchemy, Django, psycopg2 or psycopg: whatever takes ``%s`` for a value. Nothing
of these is imported here.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice import address, keys, wire
from knocktwice.broker import KombuBroker
from knocktwice.client import Client
from knocktwice.durability import asked
from knocktwice.envelope import Outgoing
from knocktwice.keys import Use
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.names import Task, scoped

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from knocktwice_shared.durability import Durability

log = logging.getLogger("knocktwice")

#: The table in the application's database. Make it with your own migrations, or with ``knocktwice outbox create``.
DDL = """CREATE TABLE IF NOT EXISTS knocktwice_outbox (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message_id uuid NOT NULL,
  task text NOT NULL,
  message text NOT NULL,
  summary text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
)"""

_INSERT = "INSERT INTO knocktwice_outbox (message_id, task, message, summary) VALUES (%s, %s, %s, %s)"

# One relay at a time keeps the order; others find the lock taken. A relay whose machine is gone loses its session, and
# with it the lock.
_LOCK = """
SELECT pg_try_advisory_xact_lock(hashtext('knocktwice_outbox')),
       set_config('idle_in_transaction_session_timeout', '60000', true)
"""
_READ = "SELECT position, message_id, task, message, summary FROM knocktwice_outbox ORDER BY position LIMIT %s"
_DELETE = "DELETE FROM knocktwice_outbox WHERE position = ANY(%s)"
_WAITING = "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM knocktwice_outbox"

#: Rows published together.
_AT_ONCE = 200
#: Seconds to wait after an error.
_STUMBLED_S = 2.0


class OutboxClient(Client):
    """A :class:`~knocktwice.Client` whose messages are rows of a transaction. Make one for each transaction.

    All methods are those of ``Client``. A call returns when its row is written; the message is *accepted* when the
    transaction is committed, as safely as the database keeps it. "Said before, counts before" holds from the moment at
    which the relay has published it. Two calls with one ``key`` return two ids; the second notification ends as a
    duplicate.

    Args:
        connection: a SQLAlchemy ``Session`` or ``Connection``, Django's ``connection``, or one of psycopg2 or psycopg.
            It is neither committed nor closed here.
        project, test: as of :class:`~knocktwice.Client`.
    """

    def __init__(self, connection: Any, *, project: str | None = None, test: bool = False) -> None:
        self._project = wire.side(project, test=test)
        self._broker = _Table(connection)


class _Table:
    """The broker of an :class:`OutboxClient`."""

    def __init__(self, connection: Any) -> None:
        # A SQLAlchemy session is asked for its connection, which is that of its transaction.
        session = callable(getattr(connection, "connection", None))
        self._connection = connection.connection() if session else connection

    def claim_keys(self, proposals: Mapping[str, Use]) -> dict[str, Use]:
        """Return the proposals; the relay claims the keys."""
        return dict(proposals)

    def accept(self, messages: Iterable[Outgoing]) -> None:
        """Write the messages as rows."""
        rows = [(str(m.id), str(m.task), m.message, m.summary) for m in messages]
        if hasattr(self._connection, "exec_driver_sql"):
            self._connection.exec_driver_sql(_INSERT, rows)
            return
        with closing(self._connection.cursor()) as cursor:
            cursor.executemany(_INSERT, rows)

    def close(self) -> None:
        """Leave the connection to the application."""


class Relay:
    """Publishes the rows of an outbox. Several may run: one of them works, the others stand by.

    Args:
        connect: opens a DB-API connection to the application's database: ``lambda: psycopg2.connect(url)``, or
            SQLAlchemy's ``engine.raw_connection``.
        broker_url, state_url, timeout, durability, replicas: as of :class:`~knocktwice.Client`. A row is deleted when
            its message is accepted at this level.

    Raises:
        KnocktwiceError: as of :class:`~knocktwice.Client`.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        broker_url: str | None = None,
        *,
        state_url: str | None = None,
        timeout: float = 5.0,
        durability: Durability | str | None = None,
        replicas: int | None = None,
    ) -> None:
        if not broker_url and os.environ.get("KNOCKTWICE_CELLS_FILE"):
            # The ids that the outbox has told the application carry no cell.
            raise KnocktwiceError("the outbox does not know cells; publish with Client(cells=...) instead")
        self._connect = connect
        self._broker = KombuBroker(address.find(broker_url, state_url), timeout, asked(durability, replicas))
        self._connection: Any = None

    def publish(self) -> int:
        """Publish the oldest rows and delete them; return how many there were. After a full round there may be more.

        Raises:
            BrokerUnavailable: the broker did not accept them; the rows stay.
            Exception: the database's driver raised it.
        """
        try:
            return self._publish()
        except BaseException:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(Exception):
                    connection.close()
            raise

    def run(self, stop: threading.Event, *, every_s: float = 0.5) -> None:
        """Publish until ``stop`` is set; errors are logged, and everything is tried again.

        Args:
            every_s: seconds between two looks at an empty table.
        """
        broken = False
        while not stop.is_set():
            pause = every_s
            try:
                while not stop.is_set() and self.publish() == _AT_ONCE:
                    pass
                if broken:
                    log.warning("the outbox is published again")
                broken = False
            except Exception as error:  # noqa: BLE001 - the rows stay, and the loop is all that would publish them
                if not broken:
                    log.warning("the outbox is not published: %s: %.300s", type(error).__name__, error)
                broken, pause = True, max(every_s, _STUMBLED_S)
            stop.wait(pause)

    def waiting(self) -> tuple[int, float]:
        """Return how many rows wait, and for how many seconds the oldest has."""
        with closing(self._cursor()) as cursor:
            cursor.execute(_WAITING)
            count, age = cursor.fetchone()
        self._connection.rollback()
        return int(count), float(age)

    def close(self) -> None:
        """Close both connections."""
        self._broker.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cursor(self) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection.cursor()

    def _publish(self) -> int:
        with closing(self._cursor()) as cursor:
            cursor.execute(_LOCK)
            rows: Sequence[Any] = ()
            if cursor.fetchone()[0]:
                cursor.execute(_READ, (_AT_ONCE,))
                rows = cursor.fetchall()
            if rows:
                self._broker.accept(self._with_first_ids([_outgoing(*row[1:]) for row in rows]))
                cursor.execute(_DELETE, ([row[0] for row in rows],))
        self._connection.commit()
        return len(rows)

    def _with_first_ids(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Claim the idempotency keys, as a client does before it sends."""
        wires = {m.id: json.loads(m.message) for m in messages if m.task is Task.SEND_PUSH and '"key"' in m.message}
        keyed = [
            (wire["recipients"][place], scoped(wire["recipients"][place]["key"], wire.get("project")), said)
            for wire in wires.values()
            for place, said in keys.digests(wire).items()
        ]
        # Of two uses of a key in one round the first counts.
        proposals = {key: Use(UUID(r["id"]), said) for r, key, said in reversed(keyed)}
        if not proposals:
            return list(messages)
        first = self._broker.claim_keys(proposals)
        for recipient, key, _ in keyed:
            recipient["id"] = str(first[key].id)
        return [Outgoing.encode(m.id, m.task, wires[m.id], m.summary) if m.id in wires else m for m in messages]


def _outgoing(message_id: UUID | str, task: str, message: str, summary: str) -> Outgoing:
    return Outgoing.encode(UUID(str(message_id)), Task(task), json.loads(message), summary)
