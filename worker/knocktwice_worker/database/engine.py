"""The engine: how connections to PostgreSQL are made and what every one of them knows."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from psycopg2.extensions import new_type, register_type

from knocktwice_worker.database import arrays

_MILLISECOND = timedelta(milliseconds=1)
#: PostgreSQL's ``uuid``.
_ID_AS_TEXT = new_type((2950,), "UUID as text", lambda value, _: value)


#: What libpq does about a peer that has gone without a word: seconds until it asks, between questions, and how many go
#: unanswered; and milliseconds until sent data must have arrived. Without them a dead server holds a worker for minutes.
_DEAD_PEERS = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}

#: Longest wait for a lock. Whoever waits longer gives up and tries again: one stuck row must not use up all connections.
_LOCK_WAIT = timedelta(seconds=10)


def create(url: str, *, pool_size: int, idle: timedelta) -> sa.Engine:
    """Return an engine; it connects when it is first used.

    Args:
        url: SQLAlchemy's.
        pool_size: most connections; whoever needs one more waits.
        idle: how long a transaction may stand still. A worker that is stopped for longer loses its locks, and what it had
            not committed.
    """
    arrays.register()
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        # An error's text is logged and shown; the values in it are personal data.
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "knocktwice", **_DEAD_PEERS},
    )
    bounds = (
        f"SET lock_timeout = {_LOCK_WAIT // _MILLISECOND}; "
        f"SET idle_in_transaction_session_timeout = {idle // _MILLISECOND}"
    )
    sa.event.listen(engine, "connect", partial(_bounded, bounds))
    sa.event.listen(engine, "connect", _ids_as_text)
    return engine


def _bounded(bounds: str, connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(bounds)
    connection.commit()


def _ids_as_text(connection: Any, _: object) -> None:
    # Ids are sent as text and never looked into. An object for each id, and a text made of it again, cost more than anything
    # else that a row of a batch went through.
    register_type(_ID_AS_TEXT, connection)
