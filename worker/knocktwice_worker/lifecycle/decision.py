"""The decision whether a step that is due goes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.messages import When
from knocktwice_worker.lifecycle.reasons import Verdict
from knocktwice_worker.lifecycle.states import OPEN, DeliveryState
from knocktwice_worker.lifecycle.triggers import FOLLOW_UPS, TRIGGERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knocktwice_worker.lifecycle.triggers import Evidence, Trigger


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts from which :func:`decide` decides about a step that is due.

    Attributes:
        when: its trigger; ``None`` for a first step, which waits for nothing.
        before: state of the step that it follows; for a push ``skipped`` means that no device could show it, and an
            open state that no device has it yet. ``None``: there is none.
        delivered: that step, or a later one, was reported as delivered.
        clicked: the push was clicked, or a link in a message.
        cancelled: the application asked to stop.
        follows_push: whether that step is the push.
        undelivered: the provider reported that what that step sent will not arrive.
        read: a provider reported that a message was read.
        seen: the person has seen elsewhere what it says.
        replied: the person replied to a message.
    """

    when: When | None
    before: DeliveryState | None
    delivered: bool = False
    clicked: bool = False
    cancelled: bool = False
    follows_push: bool = True
    undelivered: bool = False
    read: bool = False
    seen: bool = False
    replied: bool = False

    def known(self, wanted: Iterable[Evidence]) -> bool:
        """Whether any of this evidence is known."""
        return any(getattr(self, evidence) for evidence in wanted)


def decide(facts: Facts) -> Verdict:
    """Return whether a step that is due must be sent, and why.

    If the step before it could not go out at all, an unanswered step is needed whatever its trigger is: no receipt can
    come.
    """
    if facts.cancelled:
        return Verdict.CANCELLED
    if facts.before is None:
        return Verdict.FIRST_STEP
    if facts.when in FOLLOW_UPS:
        return _follow_up(facts, TRIGGERS[facts.when])
    trigger = TRIGGERS[facts.when or When.NOT_DELIVERED]
    if facts.known(trigger.answered_by):
        return Verdict.REACHED_IN_TIME
    if facts.follows_push:
        if facts.before is DeliveryState.FAILED:
            return Verdict.PUSH_FAILED
        if facts.before is DeliveryState.SKIPPED:
            return Verdict.NOTIFICATIONS_DISABLED
        if facts.before in OPEN:
            # Nobody can answer a push that was not handed over. It may also fail yet, and then the step is due.
            return Verdict.WAIT
    else:
        if facts.before in (DeliveryState.FAILED, DeliveryState.SKIPPED):
            return Verdict.STEP_FAILED
        if facts.undelivered and not facts.delivered:
            return Verdict.UNDELIVERED
    return trigger.unanswered if trigger.answered_by else Verdict.NOTIFICATIONS_ENABLED


def _follow_up(facts: Facts, trigger: Trigger) -> Verdict:
    """Return whether a step that follows a success is due: whether that success has come, or may come yet."""
    if trigger.followed and facts.known(trigger.follows):
        return trigger.followed
    if facts.before in (DeliveryState.FAILED, DeliveryState.SKIPPED) or (facts.undelivered and not facts.delivered):
        return Verdict.NOTHING_TO_FOLLOW
    if facts.follows_push and facts.before in OPEN:
        return Verdict.WAIT
    return trigger.unanswered
