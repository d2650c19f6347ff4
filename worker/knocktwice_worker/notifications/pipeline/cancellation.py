"""Cancellations on their way to the rows of their notifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knocktwice_worker.blasts import expansion
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import accepted

if TYPE_CHECKING:
    from knocktwice_shared.messages import Cancellation
    from knocktwice_worker.services import Services


def cancel(services: Services, wanted: Cancellation) -> None:
    """Stop notifications that have not reached the provider yet.

    What is cancelled is committed before it is stopped. Whoever writes the rows meanwhile looks for cancellations after
    committing them (:func:`knocktwice_worker.notifications.pipeline.push.send_all`), so one of the two sees what the other did.
    """
    ids = [*map(str, wanted.ids), *accepted.ids_of(services, wanted.keys)]
    with services.engine.begin() as conn:
        noted = store.note_cancelled(conn, ids, wanted.keys, datetime.now(UTC))
        for key in wanted.blasts:
            expansion.abort(conn, key, "cancelled by the application")
    with services.engine.begin() as conn:
        store.settle_cancelled(conn, noted)
