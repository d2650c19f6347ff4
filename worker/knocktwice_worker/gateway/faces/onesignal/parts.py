"""A message to many is several batches here; their ids follow from the id that OneSignal's client has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.gateway.faces.onesignal.targets import ENTRIES_LIMIT
from knocktwice_worker.gateway.intake.idempotency import notification_id

if TYPE_CHECKING:
    from uuid import UUID

#: In the reference of a batch: the id of the message that it is a part of.
PART_OF = "onesignal_part_of"
#: The places of notifications of a batch end far below it.
_FIRST = 1_000_000


def part(id_: UUID, place: int) -> UUID:
    """Return the id of the ``place``-th batch of a message; the first one's is the message's own."""
    return notification_id(id_, _FIRST + place) if place else id_


def parts(id_: UUID) -> list[UUID]:
    """Return the ids of all batches that a message can have."""
    return [part(id_, place) for place in range(-(-ENTRIES_LIMIT // BATCH_LIMIT))]
