"""Receipts from devices on their way to the broker, many requests' together."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from knocktwice import address, wire
from knocktwice.broker import KombuBroker
from knocktwice.envelope import Outgoing
from knocktwice_shared.counted import many
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_shared.names import BATCH_LIMIT, Task
from knocktwice_worker.content.links.link_store import LINK
from knocktwice_worker.content.links.receipt_urls import device_mark
from knocktwice_worker.embedded.installation import broker_url
from knocktwice_worker.gateway.intake.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services

#: Receipts written together, and how many may wait.
_AT_ONCE, _MOST_WAITING = 5_000, 50_000
#: Seconds between two writes, so that single receipts come to a worker many at once: one at a time they cost it several
#: times as much.
_APART_S = 0.01


class ReceiptIntake:
    """Takes receipts. What :meth:`take` has returned for is in the broker twice, as with the producer library.

    Args:
        services: where the broker is, and what tokens are signed with.
    """

    def __init__(self, services: Services) -> None:
        self._tokens = services.receipt_tokens
        self._broker = KombuBroker(address.find(broker_url(services.settings), services.settings.state_url), 5.0)
        self._neighbours = services.neighbours
        self._group = GroupCommit(self._write, at_once=_AT_ONCE, most_waiting=_MOST_WAITING, apart_s=_APART_S)

    def read(self, token: str, kind: Receipt, at: datetime | None = None) -> ReceiptEvent:
        """Return what a token gives the right to report.

        Args:
            at: when it happened; left out or in the future: now.

        Raises:
            RefusedToken: none.
        """
        now = time.time()
        valid = self._tokens.read(token, now=now)
        moment = datetime.fromtimestamp(now, UTC)
        return ReceiptEvent(valid.notification, kind, min(at or moment, moment), device_mark(valid.device))

    def click(self, notification: UUID, step: int) -> ReceiptEvent:
        """Return that a link in a step's message was opened now. Again, it is the same event."""
        return ReceiptEvent(notification, Receipt.CLICKED, datetime.now(UTC), f"{LINK}{step}", step)

    async def take(self, events: Sequence[ReceiptEvent]) -> None:
        """Return once the receipts are durable.

        Raises:
            BrokerUnavailable: it is not known whether they are; a repeat is harmless.
            Problem: too much is waiting.
        """
        await self._group.add(events)

    async def close(self) -> None:
        """Write what waits and let go of the broker."""
        await self._group.close()
        self._broker.close()

    def _write(self, events: Sequence[ReceiptEvent]) -> None:
        # An address works as often as anybody likes; what is said again at once shall cost the workers nothing.
        events = list({(e.notification, e.kind, e.registration, e.step): e for e in reversed(events)}.values())[::-1]
        if self._neighbours is None:
            _hand(self._broker, events)
            return
        for cell in self._neighbours.cells.all:
            owners = ((event, self._neighbours.cells.of_id(UUID(str(event.notification)))) for event in events)
            if own := [event for event, owner in owners if owner is None or owner.number == cell.number]:
                here = cell.number == self._neighbours.own.number
                _hand(self._broker if here else self._neighbours.broker(cell), own)


def _hand(broker: KombuBroker, events: Sequence[ReceiptEvent]) -> None:
    broker.accept(_message(events[start : start + BATCH_LIMIT]) for start in range(0, len(events), BATCH_LIMIT))


def _message(events: Sequence[ReceiptEvent]) -> Outgoing:
    """Return the message about some receipts. It contains no unchecked input, so only the worker checks it."""
    told = wire.receipts([wire.receipt_of(event, place) for place, event in enumerate(events)])
    return Outgoing.encode(uuid7(), Task.RECORD_EVENTS, told, many(len(events), "receipt"))
