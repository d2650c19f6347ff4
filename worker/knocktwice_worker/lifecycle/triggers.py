"""The triggers: which evidence of an answer makes a step unnecessary, and what follows without it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from knocktwice_shared.messages import When
from knocktwice_worker.lifecycle.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Evidence(StrEnum):
    """The evidence of a person's answer: the receipts of apps, the reports of providers, and replies."""

    #: It has arrived: the app or the provider reported it.
    DELIVERED = "delivered"
    #: The provider reported that the person opened the message.
    READ = "read"
    #: The person opened the push, or a link in a message.
    CLICKED = "clicked"
    #: The person has seen what it says elsewhere.
    SEEN = "seen"
    #: The person replied to a message.
    REPLIED = "replied"


@dataclass(frozen=True, slots=True)
class Trigger:
    """The rule of one trigger: the evidence that it waits for, and the verdict without it.

    Attributes:
        answered_by: the evidence that makes the step unnecessary; any of it is enough. A delivery counts if it is about
            the step that this one follows, or about a later one; all other evidence counts for every step. Empty:
            nothing makes it unnecessary.
        unanswered: the verdict if no such evidence came in time.
        follows: the evidence that the step asks for, where it follows a success; counted like the above.
        followed: the verdict if that evidence came in time.
    """

    answered_by: frozenset[Evidence]
    unanswered: Verdict
    follows: frozenset[Evidence] = frozenset()
    followed: Verdict | None = None


_NOTHING: frozenset[Evidence] = frozenset()

#: Proof that the person has the message. A reply is none: it is only taken to be about the newest message to the
#: number.
_ARRIVED = frozenset({Evidence.DELIVERED, Evidence.READ, Evidence.CLICKED, Evidence.SEEN})

_OPENED = frozenset({Evidence.READ, Evidence.CLICKED, Evidence.SEEN})

#: A message that was read was not answered yet.
_ANSWERED = frozenset({Evidence.CLICKED, Evidence.SEEN, Evidence.REPLIED})

#: The rules of all triggers. :func:`decide` reads this table, and the SQL in ``notifications/store/trigger_sql.py`` is
#: made from it; the roll-ups and the delay curve use that SQL. Without a rule for each trigger no process starts.
TRIGGERS: Mapping[When, Trigger] = {
    When.NOTIFICATIONS_DISABLED: Trigger(_NOTHING, Verdict.NOTIFICATIONS_DISABLED),
    When.NOT_DELIVERED: Trigger(_ARRIVED, Verdict.NOT_DELIVERED),
    When.NOT_CLICKED: Trigger(_OPENED, Verdict.NOT_CLICKED),
    When.NOT_ANSWERED: Trigger(_ANSWERED, Verdict.NOT_ANSWERED),
    When.DELIVERED: Trigger(_NOTHING, Verdict.NO_RECEIPT, _ARRIVED, Verdict.FOLLOWS_DELIVERY),
    When.CLICKED: Trigger(
        _NOTHING, Verdict.NO_RECEIPT, frozenset({Evidence.READ, Evidence.CLICKED}), Verdict.FOLLOWS_CLICK
    ),
}

#: The triggers of steps that follow a success. An answer ends a plan, but not before them.
FOLLOW_UPS = [when for when in When if TRIGGERS[when].follows]

#: The triggers that wait for more than that a message was read.
NOT_BY_READING = [
    when for when in When if TRIGGERS[when].answered_by and Evidence.READ not in TRIGGERS[when].answered_by
]


def triggers_answered_by(evidence: Evidence) -> list[When]:
    """Return the triggers whose steps become unnecessary with such evidence."""
    return [when for when in When if evidence in TRIGGERS[when].answered_by]


def answers(evidence: Evidence, *, of_step: int, trigger: When | None, after_step: int) -> bool:
    """Return whether evidence makes an open step unnecessary.

    Args:
        evidence: what is known.
        of_step: the step that it is about.
        trigger: the open step's trigger; ``None``: the step waits for nothing.
        after_step: the step that the open step follows.
    """
    return trigger in triggers_answered_by(evidence) and (evidence is not Evidence.DELIVERED or of_step >= after_step)
