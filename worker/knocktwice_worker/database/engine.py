"""The engine: how connections to PostgreSQL are made and what every one of them knows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from psycopg2.extensions import new_type, register_type

from knocktwice_worker.database import arrays

#: PostgreSQL's ``uuid``.
_ID_AS_TEXT = new_type((2950,), "UUID as text", lambda value, _: value)


def create(url: str, *, pool_size: int) -> sa.Engine:
    """Return an engine; it connects when it is first used.

    Args:
        url: SQLAlchemy's.
        pool_size: most connections; whoever needs one more waits.
    """
    arrays.register()
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        # An error's text is logged and shown; the values in it are personal data.
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "knocktwice"},
    )
    sa.event.listen(engine, "connect", _ids_as_text)
    return engine


def _ids_as_text(connection: Any, _: object) -> None:
    # Ids are sent as text and never looked into. An object for each id, and a text made of it again, cost more than anything
    # else that a row of a batch went through.
    register_type(_ID_AS_TEXT, connection)
