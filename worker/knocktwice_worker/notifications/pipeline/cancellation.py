"""Cancellations, carried out on the rows of their notifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine


def cancel(
    engine: Engine,
    ids: Sequence[str],
    keys: Sequence[str],
    project: str | None = None,
    *,
    also: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Stop notifications that have not reached the provider yet.

    A cancellation and a writer of the same rows may not see each other's transaction. So the cancellation is committed
    before it stops any row, and the writer looks for cancellations after its commit
    (:meth:`knocktwice_worker.notifications.pipeline.push.Pushes.send_all`). One of the two then sees the other's rows.

    Args:
        ids: notification ids, known or not.
        keys: idempotency keys of notifications.
        project: whose these are; those of others are left alone.
        also: cancels more in the same transaction, for example blasts.
    """
    with engine.begin() as conn:
        noted = store.note_cancelled(conn, ids, keys, datetime.now(UTC), project)
        also(conn)
    with engine.begin() as conn:
        if project is not None:
            # A writer may have committed the rows since, and have looked for this cancellation before it was there.
            store.adopt_cancelled(conn, dict.fromkeys(noted, project))
        store.settle_cancelled(conn, noted)
