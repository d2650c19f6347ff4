"""The engine: makes connections to PostgreSQL with the session settings that all of them share."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from psycopg2.extensions import new_type, register_type

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
            transaction, which costs a round trip.
        ping: whether a connection is tried before each use, which costs a round trip; without it, one that the server
            has ended fails.
    """
    arrays.register()
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        # An error's text is logged and shown, so it must not contain the values, which are personal data.
        hide_parameters=True,
        pool_pre_ping=ping,
        connect_args={"connect_timeout": 10, "application_name": "knocktwice", **_DEAD_PEERS},
    )
    set_ = "SET LOCAL" if pooled else "SET"
    bounds = (
        f"{set_} lock_timeout = {_LOCK_WAIT // _MILLISECOND}; "
        f"{set_} idle_in_transaction_session_timeout = {idle // _MILLISECOND}; "
        # Compiling a statement takes longer than any of ours runs. Whatever forbids scans of whole tables looks so dear
        # to the planner that it would be compiled each time.
        f"{set_} jit = off"
    )
    if pooled:
        sa.event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(bounds))
    else:
        sa.event.listen(engine, "connect", partial(_bounded, bounds))
    sa.event.listen(engine, "connect", _ids_as_text)
    return engine


def _bounded(bounds: str, connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(bounds)
    connection.commit()


def _ids_as_text(connection: Any, _: object) -> None:
    # Ids are sent as text and never calculated with. An object for each id, and a text made from it again, were the
    # largest cost of a row in a batch.
    register_type(_ID_AS_TEXT, connection)
