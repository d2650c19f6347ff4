"""Transactions of requests: as short as a client's patience."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

#: Longest query.
PATIENCE_MS = 10_000
#: Longest query of somebody who asks what a blast would do to a million people.
LONG_PATIENCE_MS = 60_000


@contextmanager
def reading(services: Services, patience_ms: int = PATIENCE_MS) -> Iterator[Connection]:
    """Yield a connection for queries that end in bounded time."""
    with services.engine.connect() as conn:
        conn.execute(text(f"SET LOCAL statement_timeout = {patience_ms}"))
        yield conn


@contextmanager
def writing(services: Services) -> Iterator[Connection]:
    """Yield a connection whose changes are committed in the end, or undone by an error."""
    with services.engine.begin() as conn:
        conn.execute(text(f"SET LOCAL statement_timeout = {PATIENCE_MS}"))
        yield conn
