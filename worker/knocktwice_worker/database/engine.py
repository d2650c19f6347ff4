"""The engine: makes connections to PostgreSQL with the session settings that all of them share."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, cursor, new_type, register_type

from knocktwice_worker.database import arrays

_MILLISECOND = timedelta(milliseconds=1)
#: The type ``uuid`` of PostgreSQL (OID 2950), read as text.
_ID_AS_TEXT = new_type((2950,), "UUID as text", lambda value, _: value)


#: libpq's detection of a dead server: seconds of silence before the first probe, seconds between probes, and probes
#: without an answer; and milliseconds within which sent data must be acknowledged. Without these settings a dead server
#: blocks a worker for minutes.
_DEAD_PEERS = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}

#: The longest wait for a lock. After it the statement fails and is tried again later, so that one stuck row cannot use
#: up all connections.
_LOCK_WAIT = timedelta(seconds=10)


def create(url: str, *, pool_size: int, idle: timedelta, pooled: bool = False, ping: bool = True) -> sa.Engine:
    """Return an engine, which connects when it is first used.

    Args:
        url: the database's address in SQLAlchemy's form.
        pool_size: the most connections; a thread that needs another one waits.
        idle: how long a transaction may be idle. A worker that is suspended for longer loses its locks and its
            uncommitted changes.
        pooled: whether there is a pooler in between that lends a server's session for one transaction, as PgBouncer
            does. What is set for a session would then reach somebody else's next transaction, so it is set in each
            transaction, in one round trip with the first statement.
        ping: whether a connection is tried before each use, which costs a round trip; without it, one that the server
            has ended fails.
    """
    arrays.register()
    set_ = "SET LOCAL" if pooled else "SET"
    bounds = (
        f"{set_} lock_timeout = {_LOCK_WAIT // _MILLISECOND}; "
        f"{set_} idle_in_transaction_session_timeout = {idle // _MILLISECOND}; "
        # Compiling a statement takes longer than any of ours runs. Whatever forbids scans of whole tables looks so dear
        # to the planner that it would be compiled each time.
        f"{set_} jit = off"
    )
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        # An error's text is logged and shown, so it must not contain the values, which are personal data.
        hide_parameters=True,
        pool_pre_ping=ping,
        connect_args={
            "connect_timeout": 10,
            "application_name": "knocktwice",
            **({"cursor_factory": partial(_Bounded, bounds)} if pooled else {}),
            **_DEAD_PEERS,
        },
    )
    if not pooled:
        sa.event.listen(engine, "connect", partial(_set, bounds))
    sa.event.listen(engine, "connect", _ids_as_text)
    return engine


def _set(bounds: str, connection: Any, _: object) -> None:
    with connection.cursor() as own:
        own.execute(bounds)
    connection.commit()


class _Bounded(cursor):
    """Sends what is set for a transaction together with its first statement."""

    def __init__(self, bounds: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - as psycopg2 has it
        """Run a statement."""
        if self.name is not None:
            # PostgreSQL declares a cursor for one statement only: the bounds go before it.
            self._begin()
        elif self._begins:
            # psycopg2's helpers send bytes.
            query = (
                b"%b; %b" % (self._bounds.encode(), query) if isinstance(query, bytes) else f"{self._bounds}; {query}"
            )
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Run a statement many times."""
        self._begin()
        super().executemany(query, vars_list)

    def _begin(self) -> None:
        if self._begins:
            with self.connection.cursor() as first:
                first.execute("SELECT")

    @property
    def _begins(self) -> bool:
        """Whether the next statement begins a transaction."""
        connection = self.connection
        return connection.info.transaction_status == TRANSACTION_STATUS_IDLE and not connection.autocommit


def _ids_as_text(connection: Any, _: object) -> None:
    # Ids are sent as text and never calculated with. An object for each id, and a text made from it again, were the
    # largest cost of a row in a batch.
    register_type(_ID_AS_TEXT, connection)
