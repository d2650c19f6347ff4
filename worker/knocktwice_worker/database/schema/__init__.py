"""The tables, as SQLAlchemy knows them, one file for each subject.

``migrations/`` builds the same; a test proves that they agree. The ``comment`` of each table and column says what it
means, in the database, too: ``\\d+ deliveries`` in psql shows it. Children are keyed first by the notification's id,
which is a UUIDv7: rows of one time lie together and old ones can be dropped by range. Each index says which query it
serves.

Importing this package loads every table into ``metadata``. A new file of tables must be imported here, or Alembic does
not see its tables.
"""

from __future__ import annotations

from knocktwice_worker.database.schema import (
    blasts,
    brake,
    content,
    figures,
    incoming,
    notifications,
    operators,
    opt_outs,
    people,
    webhooks,
)
from knocktwice_worker.database.schema.conventions import CLOCK, metadata

__all__ = [
    "CLOCK",
    "blasts",
    "brake",
    "content",
    "figures",
    "incoming",
    "metadata",
    "notifications",
    "operators",
    "opt_outs",
    "people",
    "webhooks",
]
