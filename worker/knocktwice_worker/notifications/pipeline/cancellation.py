"""Cancellations on their way to the rows of their notifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Cancellation
    from knocktwice_worker.services import Services


def cancel(services: Services, wanted: Cancellation, also: Callable[[Connection], None] = lambda _: None) -> None:
    """Stop notifications that have not reached the provider yet.

    What is cancelled is committed before it is stopped. Whoever writes the rows meanwhile looks for cancellations after
    committing them (:func:`knocktwice_worker.notifications.pipeline.push.send_all`), so one of the two sees what the other did.

    Args:
        also: what else the message cancels (its blasts), in the transaction that cancels the notifications.
    """
    ids = [*map(str, wanted.ids), *accepted.ids_of(services, wanted.keys)]
    with services.engine.begin() as conn:
        noted = store.note_cancelled(conn, ids, wanted.keys, datetime.now(UTC))
        also(conn)
    with services.engine.begin() as conn:
        store.settle_cancelled(conn, noted)
