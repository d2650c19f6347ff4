"""The rules of the triggers (``lifecycle.TRIGGERS``) as SQL, for all statements that compare receipts with steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt
from knocktwice_worker import lifecycle
from knocktwice_worker.content.links.link_store import LINK
from knocktwice_worker.lifecycle import Evidence, triggers_answered_by

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The kind of an event that stops a notification; all other kinds are evidence of an answer.
CANCELLED = "cancelled"
#: The kind of an event that a reply makes.
REPLIED = str(Evidence.REPLIED)


def words(values: Iterable[str]) -> str:
    """Return words as an SQL list, ``('a', 'b')``. An empty list matches nothing."""
    return "(" + (", ".join(f"'{value}'" for value in values) or "NULL") + ")"


#: Evidence → true if the event ``e`` is such evidence. A provider's report that a message was read is kept as a click
#: on the message; clicks on its links name the link.
IS = {evidence: f"e.kind = '{evidence}'" for evidence in Evidence} | {
    Evidence.READ: f"e.kind = '{Receipt.CLICKED}' AND e.step > 0 AND NOT starts_with(e.registration, '{LINK}')",
    Evidence.CLICKED: f"e.kind = '{Receipt.CLICKED}' AND (e.step = 0 OR starts_with(e.registration, '{LINK}'))",
}
#: The kind of the event ``e``; that a message was read is told apart from a click.
KIND = f"CASE WHEN {IS[Evidence.READ]} THEN '{Evidence.READ}' ELSE e.kind END"
#: SQL list of the kinds of events with which a person shows that they know what the notification says.
OPENED = words([Receipt.CLICKED, Receipt.SEEN])

_BY_DELIVERY, _BY_CLICK = (triggers_answered_by(evidence) for evidence in (Evidence.DELIVERED, Evidence.CLICKED))

#: SQL lists of triggers: those that a click answers, and those that a click answers and a delivery does not.
ANSWERED_BY_CLICK = words(_BY_CLICK)
ANSWERED_BY_CLICK_ONLY = words([when for when in _BY_CLICK if when not in _BY_DELIVERY])

#: SQL lists of the triggers of steps that follow a success, and of those that wait for more than a read message.
FOLLOW_UPS = words(lifecycle.FOLLOW_UPS)
NOT_BY_READING = words(lifecycle.NOT_BY_READING)


# Usually no blast is being cancelled, which one look at an index with hardly an entry tells a whole statement. A blast wakes
# until all its pages are cancelled.
_ABORTED = """
CASE WHEN EXISTS (SELECT FROM blasts WHERE state = 'aborted' AND wake_at IS NOT NULL) THEN (
  SELECT aborted.finished_at
  FROM blast_pages page
  JOIN blasts aborted ON aborted.id = page.blast_id AND aborted.state = 'aborted'
  WHERE page.id = {batch} AND page.cancelled_at IS NULL
) END
"""


def aborted_at(batch: str) -> str:
    """Return SQL for when the blast of a batch was aborted, if the notifications of the batch are not cancelled yet; else null.

    A blast is aborted in one moment, and its notifications are cancelled page by page after it. What asks for cancellations
    meanwhile asks for this, too.

    Args:
        batch: SQL for the id of the batch, which is also that of a blast's page.
    """
    return _ABORTED.format(batch=batch)


def _answers(evidence: Evidence, step: str) -> str:
    of_step = f" AND e.step >= {step}.after_step" if evidence is Evidence.DELIVERED else ""
    return f"{IS[evidence]} AND {step}.trigger IN {words(triggers_answered_by(evidence))}{of_step}"


def answers(step: str) -> str:
    """Return SQL that is true if the event ``e`` makes a delivery unnecessary; the same rule as :func:`lifecycle.answers`.

    Args:
        step: the alias of the delivery.
    """
    return " OR ".join(_answers(evidence, step) for evidence in Evidence)


#: True if the event ``e``, a cancellation perhaps, makes the delivery ``d`` unnecessary.
ANSWERS = f"""
  (e.kind = '{CANCELLED}' OR {answers("d")})
"""
