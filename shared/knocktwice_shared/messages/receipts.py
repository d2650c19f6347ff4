"""``record_events``: what devices report of a notification."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from knocktwice_shared.messages import checks
from knocktwice_shared.messages.problems import all_at_once, fail
from knocktwice_shared.messages.values import STEPS_LIMIT
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

_RECEIPT = {"notification", "kind", "at", "registration", "step"}


class Receipt(StrEnum):
    """The kinds of receipts."""

    #: It has arrived on a device.
    DELIVERED = "delivered"
    #: The person opened it.
    CLICKED = "clicked"
    #: The person has seen what it says elsewhere: inside the app, on another device, in an e-mail.
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class ReceiptEvent:
    """A device's word about a notification.

    Attributes:
        registration: which device; may be left out by apps that do not know it.
        step: which step was answered: 0 is the push, 1 what follows it first.
    """

    notification: UUID
    kind: Receipt
    at: datetime
    registration: str | None = None
    step: int = 0


@all_at_once
def parse_receipts(wire: object) -> tuple[ReceiptEvent, ...]:
    """Validate a ``record_events`` message: 1 to 500 receipts. Raises like :func:`parse_batch`."""
    message = checks.versioned(wire, {"v", "receipts"})
    return checks.each(_receipt, checks.list_of(message.get("receipts"), "receipts", 1, BATCH_LIMIT), "receipts")


def _receipt(value: object) -> ReceiptEvent:
    raw = checks.object_of(value, "", _RECEIPT)
    registration, step = raw.get("registration"), raw.get("step", 0)
    if type(step) is not int or not 0 <= step <= STEPS_LIMIT:
        step = fail("step", f"must be the number of a step, 0 to {STEPS_LIMIT}; the push is 0", 0)
    return ReceiptEvent(
        notification=checks.uuid(raw.get("notification"), "notification"),
        kind=checks.choice(Receipt, raw.get("kind"), "kind"),
        at=checks.time(raw.get("at"), "at"),
        registration=None
        if registration is None
        else checks.text(registration, "registration", checks.REGISTRATION_LIMIT),
        step=step,
    )
