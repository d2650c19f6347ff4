"""One code for all that a request made, from which the notifications' ids follow, so that nothing is stored for it.

A blast's code is its id, and so is that of a single notification. That of several is the id of their first batch and
how many there are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.gateway.intake.idempotency import notification_id

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Ids of batches follow from places that no notification has.
_BATCHES = 1 << 24
_CODE = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-([0-9]{1,5}))?", re.IGNORECASE)
#: The version of the ids that follow from a blast's key.
_BLAST = 5


def batch_id(root: UUID, number: int) -> UUID:
    """Return the id of the ``number``-th batch of a request whose first batch is ``root``."""
    return root if number == 0 else notification_id(root, _BATCHES + number)


def of(root: UUID, ids: Sequence[UUID]) -> str:
    """Return the code of notifications, the first batch of which is ``root``."""
    return str(ids[0]) if len(ids) == 1 else f"{root}-{len(ids)}"


def blast_of(code: str) -> UUID | None:
    """Return the blast that a code stands for; ``None``: it stands for notifications, or for nothing."""
    found = _CODE.fullmatch(code)
    id_ = UUID(found[1]) if found and found[2] is None else None
    return id_ if id_ is not None and id_.version == _BLAST else None


def notifications_of(code: str) -> list[UUID]:
    """Return the ids of the notifications that a code stands for; none if it is no code, or a blast's."""
    found = _CODE.fullmatch(code)
    if found is None or blast_of(code) is not None:
        return []
    root = UUID(found[1])
    if found[2] is None:
        return [root]
    return [
        notification_id(batch_id(root, place // BATCH_LIMIT), place % BATCH_LIMIT) for place in range(int(found[2]))
    ]
