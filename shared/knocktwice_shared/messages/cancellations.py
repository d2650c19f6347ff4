"""``cancel``: notifications and blasts that are no longer wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.problems import all_at_once
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Notifications to stop, by id, by idempotency key, or all of a blast by the blast's key.

    Attributes:
        project: whose these are; those of others are left alone. ``None``: the ids are anybody's, and the keys are
            those that were used without a project.
    """

    ids: tuple[UUID, ...] = ()
    keys: tuple[str, ...] = ()
    blasts: tuple[str, ...] = ()
    project: str | None = None


@all_at_once
def parse_cancellation(wire: object) -> Cancellation:
    """Validate a ``cancel`` message. Raises like :func:`parse_batch`."""
    message = checks.versioned(wire, {"v", "ids", "keys", "blasts", "project"})
    ids = checks.list_of(message.get("ids", []), "ids", 0, BATCH_LIMIT)
    keys = checks.list_of(message.get("keys", []), "keys", 0, BATCH_LIMIT)
    blasts = checks.list_of(message.get("blasts", []), "blasts", 0, BATCH_LIMIT)
    if not ids and not keys and not blasts:
        raise InvalidMessage("ids", "is empty and so is keys; name at least one notification")
    return Cancellation(
        ids=tuple(checks.uuid(v, f"ids[{i}]") for i, v in enumerate(ids)),
        keys=tuple(checks.text(v, f"keys[{i}]", 200) for i, v in enumerate(keys)),
        blasts=tuple(checks.text(v, f"blasts[{i}]", 200) for i, v in enumerate(blasts)),
        project=checks.side(message["project"]) if "project" in message else None,
    )
