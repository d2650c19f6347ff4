"""Receipts on their way to their rows: those of many small messages go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker import audience, store
from knocktwice_worker.combine import Combiner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import ReceiptEvent
    from knocktwice_worker.services import Services


def record(services: Services, receipts: Sequence[ReceiptEvent]) -> None:
    """Write receipts and end the fallbacks they make needless."""
    _together.run(services, receipts, size=len(receipts))


def _record_all(services: Services, groups: Sequence[Sequence[ReceiptEvent]]) -> None:
    together = [receipt for group in groups for receipt in group]
    with services.engine.begin() as conn:
        store.record_receipts(conn, together)
        audience.see(conn, together)


_together = Combiner(_record_all, turns=2, most=BATCH_LIMIT)
