"""The life of a notification: its states, the allowed edges, and the one decision that matters. Pure; no I/O.

A *notification* is ``active`` until it reaches one terminal state. It consists of *deliveries*, one per step: step 0 is
the push, if there is one, and 1, 2, … are what follows it. A step's delivery exists from the moment the one before it
ended, so at most one later step is open at a time. An unfinished delivery always has a ``wake_at``, the moment at which
somebody must look at it again; the dispatcher rings it then. That one column is countdown, retry and crash recovery
alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt, When

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotificationState(StrEnum):
    """Where a notification stands. All but ``active`` are terminal and never change again, except by :data:`REOPENED`."""

    #: Some step may still go out.
    ACTIVE = "active"
    #: A receipt made the rest needless.
    REACHED = "reached"
    #: The push went out, and no later step was needed or planned.
    PUSHED = "pushed"
    #: A provider took the message of a later step.
    TEXTED = "texted"
    #: A later step was needed and not allowed, or there was no device that shows a push.
    SUPPRESSED = "suppressed"
    #: Nothing went out, for a technical reason.
    FAILED = "failed"
    #: Nobody can tell whether the last message went out.
    UNKNOWN = "unknown"
    #: The application stopped it.
    CANCELLED = "cancelled"
    #: Its idempotency key was used before; nothing was sent.
    DUPLICATE = "duplicate"


class DeliveryState(StrEnum):
    """Where one step stands."""

    #: Waits for its time.
    SCHEDULED = "scheduled"
    #: Decided, counted against the limits, waits for a sender. Later steps only.
    RESERVED = "reserved"
    #: Claimed by a sender until its lease ends.
    SENDING = "sending"
    #: The provider took it.
    SENT = "sent"
    #: The provider refused it for good, or there was no device.
    FAILED = "failed"
    #: The provider may or may not have it.
    UNKNOWN = "unknown"
    #: Not needed, not allowed or overtaken by a later step.
    SKIPPED = "skipped"
    #: Stopped by the application.
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """Where the push to one device stands."""

    #: To be sent, or to be sent again.
    OPEN = "open"
    #: The provider took it.
    SENT = "sent"
    #: The provider refused it, or the device belongs to another user now.
    REJECTED = "rejected"


#: Delivery states that still need somebody to look at them; exactly these carry a ``wake_at``.
OPEN = frozenset({DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING})

#: Every change of a delivery's state that the store may make.
EDGES: frozenset[tuple[DeliveryState, DeliveryState]] = frozenset(
    {
        # waiting for its time → picked up, or no longer wanted
        (DeliveryState.SCHEDULED, DeliveryState.SENDING),
        (DeliveryState.SCHEDULED, DeliveryState.RESERVED),
        (DeliveryState.SCHEDULED, DeliveryState.SKIPPED),
        (DeliveryState.SCHEDULED, DeliveryState.CANCELLED),
        # counted against the limits → claimed by a sender, or no longer wanted
        (DeliveryState.RESERVED, DeliveryState.SENDING),
        (DeliveryState.RESERVED, DeliveryState.SKIPPED),
        (DeliveryState.RESERVED, DeliveryState.CANCELLED),
        # claimed → the provider's answer, or a safe retry
        (DeliveryState.SENDING, DeliveryState.SENT),
        (DeliveryState.SENDING, DeliveryState.FAILED),
        (DeliveryState.SENDING, DeliveryState.UNKNOWN),
        (DeliveryState.SENDING, DeliveryState.SCHEDULED),
        (DeliveryState.SENDING, DeliveryState.RESERVED),
        (DeliveryState.SENDING, DeliveryState.SKIPPED),
    }
)


#: What an operator may do with a message whose outcome stayed unknown: have it sent, or first looked for.
REOPENED: frozenset[tuple[DeliveryState, DeliveryState]] = frozenset(
    {
        (DeliveryState.UNKNOWN, DeliveryState.RESERVED),
        (DeliveryState.UNKNOWN, DeliveryState.SENDING),
    }
)


class ProviderState(StrEnum):
    """A provider's report about a message, weakest first: whatever order reports come in, the strongest stays."""

    #: On its way to the operator.
    SENT = "sent"
    #: The provider could not send it.
    FAILED = "failed"
    #: The operator did not deliver it.
    UNDELIVERED = "undelivered"
    #: It is on the phone.
    DELIVERED = "delivered"
    #: A person opened it.
    READ = "read"


#: Reports that a message will not arrive.
LOST = frozenset({ProviderState.FAILED, ProviderState.UNDELIVERED})


class Verdict(StrEnum):
    """What :func:`decide` says about a step that is due, in the words of the ledger and of ``knocktwice explain``."""

    # The step is needed.
    #: No receipt of the step before it.
    NOT_DELIVERED = "not_delivered"
    #: No click.
    NOT_CLICKED = "not_clicked"
    #: The person has devices and none of them shows notifications.
    NOTIFICATIONS_DISABLED = "notifications_disabled"
    #: The push could not go out.
    PUSH_FAILED = "push_failed"
    #: There is no step before it.
    FIRST_STEP = "first_step"
    #: The step before it could not go out.
    STEP_FAILED = "step_failed"
    #: The provider of the step before it reports that its message will not arrive.
    UNDELIVERED = "undelivered"

    # The step is not needed.
    #: The receipt came that its trigger asks for.
    REACHED_IN_TIME = "reached_in_time"
    #: The push went out to a device that shows it.
    NOTIFICATIONS_ENABLED = "notifications_enabled"
    #: The push went to devices that never confirm one, and the policy accepts that.
    ACCEPTED_UNCONFIRMED = "accepted_unconfirmed"
    #: The application stopped it.
    CANCELLED = "cancelled"

    # Nothing can be decided yet.
    #: No device has the push yet, and it is still being tried.
    WAIT = "wait"


class Refusal(StrEnum):
    """Why a step that is needed does not go out; the word that the ledger and the notification's reason use."""

    #: The number got the same text a moment ago.
    DUPLICATE_CONTENT = "duplicate_30s"
    #: The number got its messages of the day.
    CAPPED_DAILY = "capped_daily"
    #: The day's SMS parts are used up.
    BUDGET_EXHAUSTED = "budget_exhausted"
    #: The number asked not to be texted.
    OPTED_OUT = "opted_out"
    #: The person has no number.
    NO_PHONE = "no_phone"
    #: The number that it was to go to is not the person's any more.
    NUMBER_CHANGED = "number_changed"
    #: No address of the kind that the step's channel needs is known.
    NO_ADDRESS = "no_address"
    #: The number's country may not be texted.
    COUNTRY_BLOCKED = "country_blocked"
    #: Marketing, and the person has not agreed to it.
    NO_CONSENT = "no_consent"
    #: Nobody is set up to send by this channel.
    NO_SENDER = "no_sender"
    #: The text cannot be written any more.
    INVALID_CONTENT = "invalid_content"
    #: So long after it was due the message is of no use any more.
    TOO_LATE = "too_late"


class Delay(StrEnum):
    """Why a step that is needed and allowed goes out later."""

    #: It is night at the recipient's.
    QUIET_HOURS = "quiet_hours"
    #: Redis is down, and marketing does not go out uncounted.
    LIMITS_UNAVAILABLE = "limits_unavailable"


class Note(StrEnum):
    """A line of the ledger about what happened after the decision."""

    #: A receipt shows that the message was not needed.
    WASTED_SMS = "wasted_sms"
    #: The provider's list shows that a message of unknown outcome went out.
    ADOPTED = "adopted"
    #: A message of unknown outcome is sent once more.
    SENT_AGAIN = "sent_again"
    #: An operator has a message of unknown outcome sent again, or first looked for.
    REOPENED = "reopened"
    #: An operator takes an unknown outcome as settled.
    CLOSED = "closed"
    #: Which of several providers sends it, and why.
    PROVIDER_CHOSEN = "provider_chosen"
    #: A provider did not take it and another one gets it.
    PROVIDER_CHANGED = "provider_changed"
    #: The push was taken off the screens.
    WITHDRAWN = "withdrawn"
    #: A provider's last word about the message.
    DELIVERY_REPORT = "delivery_report"
    #: No provider's report came in time.
    DELIVERY_UNKNOWN = "delivery_unknown"


#: A word that the ledger may hold.
Entry = Verdict | Refusal | Delay | Note

#: Verdicts that call for the step.
FALL_BACK = frozenset(
    {
        Verdict.NOT_DELIVERED,
        Verdict.NOT_CLICKED,
        Verdict.NOTIFICATIONS_DISABLED,
        Verdict.PUSH_FAILED,
        Verdict.FIRST_STEP,
        Verdict.STEP_FAILED,
        Verdict.UNDELIVERED,
    }
)

#: Verdicts after which a step is not needed; the steps behind it keep their own conditions and countdowns. After a
#: refusal the next step is tried at once.
NOT_NEEDED = frozenset({Verdict.REACHED_IN_TIME, Verdict.NOTIFICATIONS_ENABLED, Verdict.ACCEPTED_UNCONFIRMED})

#: Words after which no later step is tried either.
ENDS_ALL: frozenset[Entry] = frozenset({Verdict.CANCELLED, Refusal.TOO_LATE})

#: What becomes of the notification when its last step ends with this word; any other suppresses it.
OUTCOMES: dict[Entry, NotificationState] = {
    Verdict.REACHED_IN_TIME: NotificationState.REACHED,
    Verdict.NOTIFICATIONS_ENABLED: NotificationState.PUSHED,
    Verdict.ACCEPTED_UNCONFIRMED: NotificationState.PUSHED,
    Verdict.CANCELLED: NotificationState.CANCELLED,
    Refusal.INVALID_CONTENT: NotificationState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a step with this trigger waits for.

    Attributes:
        answered_by: the weakest receipt that makes the step needless; a click implies a delivery. A click counts
            whichever step was clicked. A delivery counts if it is reported of the step that this one follows, or of a
            later one. ``None``: receipts decide nothing, the push itself does.
        unanswered: the verdict when no such receipt came in time.
    """

    answered_by: Receipt | None
    unanswered: Verdict


#: The one rule about triggers. :func:`decide` and the SQL (``notifications/store/trigger_sql.py``, from which also the
#: roll-ups and the delay curve take it) come from this table; a trigger that is missing here stops the process when it
#: starts.
TRIGGERS: Mapping[When, Trigger] = {
    When.NOTIFICATIONS_DISABLED: Trigger(None, Verdict.NOTIFICATIONS_DISABLED),
    When.NOT_DELIVERED: Trigger(Receipt.DELIVERED, Verdict.NOT_DELIVERED),
    When.NOT_CLICKED: Trigger(Receipt.CLICKED, Verdict.NOT_CLICKED),
}


#: What a receipt implies.
_IMPLIES = {Receipt.DELIVERED: {Receipt.DELIVERED}, Receipt.CLICKED: {Receipt.DELIVERED, Receipt.CLICKED}}


def triggers_answered_by(receipt: Receipt) -> list[When]:
    """Return the triggers of steps that such a receipt makes needless."""
    return [when for when in When if TRIGGERS[when].answered_by in _IMPLIES[receipt]]


def answers(receipt: Receipt, *, of_step: int, trigger: When | None, after_step: int) -> bool:
    """Return whether a receipt makes an open step needless.

    Args:
        receipt: its kind.
        of_step: the step that it is about.
        trigger: the open step's trigger; ``None``: it waits for nothing.
        after_step: the step that the open step follows.
    """
    return trigger in triggers_answered_by(receipt) and (receipt is Receipt.CLICKED or of_step >= after_step)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a step is due.

    Attributes:
        when: its trigger; ``None`` for a first step, which waits for nothing.
        before: state of the step that it follows; for a push ``skipped`` means that no device could show it, and an open
            state that no device has it yet. ``None``: there is none.
        delivered: that step, or a later one, was reported as delivered.
        clicked: some device reported a click or a person read a message, which implies delivery.
        cancelled: the application asked to stop.
        follows_push: whether that step is the push.
        undelivered: the provider reported that what that step sent will not arrive.
    """

    when: When | None
    before: DeliveryState | None
    delivered: bool = False
    clicked: bool = False
    cancelled: bool = False
    follows_push: bool = True
    undelivered: bool = False


def decide(facts: Facts) -> Verdict:
    """Return whether the next knock is due, and why.

    After a step that could not go out at all it is due whatever the trigger says: there is nothing to wait for.
    """
    if facts.cancelled:
        return Verdict.CANCELLED
    if facts.before is None:
        return Verdict.FIRST_STEP
    if facts.follows_push:
        if facts.before is DeliveryState.FAILED:
            return Verdict.PUSH_FAILED
        if facts.before is DeliveryState.SKIPPED:
            return Verdict.NOTIFICATIONS_DISABLED
    else:
        if facts.clicked:
            return Verdict.REACHED_IN_TIME
        if facts.before in (DeliveryState.FAILED, DeliveryState.SKIPPED):
            return Verdict.STEP_FAILED
        if facts.undelivered and not facts.delivered:
            return Verdict.UNDELIVERED
    trigger = TRIGGERS[facts.when or When.NOT_DELIVERED]
    if trigger.answered_by is not None and (
        facts.clicked or (facts.delivered and trigger.answered_by is Receipt.DELIVERED)
    ):
        return Verdict.REACHED_IN_TIME
    if facts.follows_push and facts.before in OPEN:
        # Nobody can answer a push that was not handed over. It may also fail yet, and then the step is due.
        return Verdict.WAIT
    return Verdict.NOTIFICATIONS_ENABLED if trigger.answered_by is None else trigger.unanswered
