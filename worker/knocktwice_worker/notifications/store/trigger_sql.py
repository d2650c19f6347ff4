"""The rules of the triggers (``lifecycle.TRIGGERS``) as SQL, for all statements that compare receipts with steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt
from knocktwice_worker import lifecycle
from knocktwice_worker.lifecycle import triggers_answered_by

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The kind of an event that stops a notification; all other kinds are receipts.
CANCELLED = "cancelled"


def words(values: Iterable[str]) -> str:
    """Return words as an SQL list, ``('a', 'b')``. An empty list matches nothing."""
    return "(" + (", ".join(f"'{value}'" for value in values) or "NULL") + ")"


_BY_DELIVERY, _BY_CLICK = (triggers_answered_by(receipt) for receipt in (Receipt.DELIVERED, Receipt.CLICKED))

#: SQL lists of triggers: those that a delivery answers (a click answers them, too), those that a click answers, and
#: those that only a click answers.
ANSWERED_BY_DELIVERY = words(_BY_DELIVERY)
ANSWERED_BY_CLICK = words(_BY_CLICK)
ANSWERED_BY_CLICK_ONLY = words([when for when in _BY_CLICK if when not in _BY_DELIVERY])

#: SQL list of the triggers of steps that follow a success.
FOLLOW_UPS = words(lifecycle.FOLLOW_UPS)

#: True if a receipt or cancellation ``e`` makes the delivery ``d`` unnecessary; the same rule as
#: :func:`lifecycle.answers`.
ANSWERS = f"""
  (e.kind = '{CANCELLED}'
   OR e.kind = '{Receipt.CLICKED}' AND d.trigger IN {ANSWERED_BY_CLICK}
   OR e.kind = '{Receipt.DELIVERED}' AND d.trigger IN {ANSWERED_BY_DELIVERY} AND e.step >= d.after_step)
"""
