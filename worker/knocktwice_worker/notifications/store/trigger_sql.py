"""The rule about triggers (``lifecycle.TRIGGERS``) as SQL. All statements that ask whether a receipt answers a step use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt
from knocktwice_worker.lifecycle import triggers_answered_by

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The kind of an event that stops a notification; all other kinds are receipts.
CANCELLED = "cancelled"


def words(values: Iterable[str]) -> str:
    """Return words as an SQL list, ``('a', 'b')``; without any it matches nothing."""
    return "(" + (", ".join(f"'{value}'" for value in values) or "NULL") + ")"


#: The triggers that a delivery answers, and those that a click answers, as SQL lists.
ANSWERED_BY_DELIVERY = words(triggers_answered_by(Receipt.DELIVERED))
ANSWERED_BY_CLICK = words(triggers_answered_by(Receipt.CLICKED))

#: Whether a receipt or cancellation ``e`` makes the delivery ``d`` needless; the SQL of :func:`lifecycle.answers`.
ANSWERS = f"""
  (e.kind = '{CANCELLED}'
   OR e.kind = '{Receipt.CLICKED}' AND d.trigger IN {ANSWERED_BY_CLICK}
   OR e.kind = '{Receipt.DELIVERED}' AND d.trigger IN {ANSWERED_BY_DELIVERY} AND e.step >= d.after_step)
"""
