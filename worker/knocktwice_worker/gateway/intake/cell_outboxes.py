"""From the event loop to the brokers of all cells: one outbox for each, so that a slow one holds up only its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from knocktwice import routing
from knocktwice_shared.errors import BrokerUnavailable
from knocktwice_worker.gateway.intake.outbox import Outbox

if TYPE_CHECKING:
    from uuid import UUID

    from knocktwice.drafts import Draft
    from knocktwice.routing import Part
    from knocktwice_shared.cells import Cells
    from knocktwice_worker.gateway.intake.idempotency import Claim
    from knocktwice_worker.services import Services


class CellOutboxes(Outbox):
    """Hands each part of a message to the cell of its people. Make it inside a running event loop.

    Args:
        services: whose settings hold.
        cells: the cells.
    """

    def __init__(self, services: Services, cells: Cells) -> None:
        self.durability = services.settings.durability
        self._cells = cells
        self._outboxes = {cell.number: Outbox(services, cell) for cell in cells.all}

    async def send(self, draft: Draft, claim: Claim | None = None) -> list[UUID]:
        """Send a message and return its notifications' ids, once the cells have their parts.

        Args:
            claim: of the request's ``Idempotency-Key``. Each cell remembers it for its own part.

        Raises:
            Problem: the key was used for something else, or too much is waiting.
            BrokerUnavailable: the outcome is unknown, or a broker is full; a repeat with the same key is safe.
        """
        parts = routing.split(draft, self._cells)
        outcomes = await asyncio.gather(*(self._send_part(part, claim) for part in parts), return_exceptions=True)
        away: list[tuple[Part, BrokerUnavailable | None]] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, BrokerUnavailable):
                raise outcome
            away.append((part, outcome))
        if (failed := routing.failure(away)) is not None:
            raise failed
        routing.collect(draft, parts)
        return list(draft.ids)

    async def close(self) -> None:
        """Send what waits and let go of the brokers."""
        for outbox in self._outboxes.values():
            await outbox.close()

    async def _send_part(self, part: Part, claim: Claim | None) -> None:
        await self._outboxes[part.cell.number].send(part.draft, claim)
