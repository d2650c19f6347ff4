"""The stand-in at the provider's door: it answers for tests, and no request leaves this process.

The first letters of a registration say what becomes of a push, as in the sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Sent
from knocktwice_worker.database.test_rows import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.channels.messages import PushMessage, StepMessage

#: How a registration begins → what the app on it would report.
_REPORTS: Mapping[str, Sequence[Receipt]] = {
    "clicks": (Receipt.DELIVERED, Receipt.CLICKED),
    "delivers": (Receipt.DELIVERED,),
}
#: How the registration of an app begins that was removed.
_GONE = "gone"


def push(message: PushMessage) -> Outcome:
    """Answer for the push provider. A device is never said to be gone for good: it may be a real one."""
    return Rejected("unregistered", "a test") if message.registration.startswith(_GONE) else Sent(STAND_IN)


def receipts(message: PushMessage) -> Sequence[Receipt]:
    """Return what the app would report of a push that was taken; most report nothing."""
    return next((own for start, own in _REPORTS.items() if message.registration.startswith(start)), ())


def step(message: StepMessage) -> Outcome:
    """Answer for the provider of a channel of later steps: it takes every message."""
    return Sent(f"test-{message.intent}")
