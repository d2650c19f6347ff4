"""The life of a notification: its states, the allowed edges, and the one decision that matters. Pure; no I/O.

A *notification* is ``active`` until it reaches one terminal state. It consists of *deliveries*, one per step: step 0 is the
push, if there is one, and 1, 2, … are what follows it. A step's delivery exists from the moment the one before it ended, so at
most one later step is open at a time. An unfinished delivery always has a ``wake_at``, the moment at which somebody must look
at it again; the dispatcher rings it then. That one column is countdown, retry and crash recovery alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from knocktwice_shared.messages import When


class NotificationState(StrEnum):
    """Where a notification stands. All but ``active`` are terminal and never change again."""

    ACTIVE = "active"
    REACHED = "reached"
    PUSHED = "pushed"
    TEXTED = "texted"
    SUPPRESSED = "suppressed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"


class DeliveryState(StrEnum):
    """Where one step stands."""

    SCHEDULED = "scheduled"
    RESERVED = "reserved"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


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


class ProviderState(StrEnum):
    """What a provider reports of a message it took, weakest first: whatever order reports come in, the strongest stays."""

    SENT = "sent"
    FAILED = "failed"
    UNDELIVERED = "undelivered"
    DELIVERED = "delivered"
    READ = "read"


#: Reports that a message will not arrive.
LOST = frozenset({ProviderState.FAILED, ProviderState.UNDELIVERED})


class Verdict(StrEnum):
    """Why a step went the way it went; the word that the decision ledger and ``knocktwice explain`` use."""

    # the second knock is due
    NOT_DELIVERED = "not_delivered"
    NOT_CLICKED = "not_clicked"
    NOTIFICATIONS_DISABLED = "notifications_disabled"
    PUSH_FAILED = "push_failed"
    FIRST_STEP = "first_step"
    STEP_FAILED = "step_failed"
    UNDELIVERED = "undelivered"
    # it is not needed
    REACHED_IN_TIME = "reached_in_time"
    NOTIFICATIONS_ENABLED = "notifications_enabled"
    ACCEPTED_UNCONFIRMED = "accepted_unconfirmed"
    CANCELLED = "cancelled"
    # it is needed but not allowed
    DUPLICATE_CONTENT = "duplicate_30s"
    CAPPED_DAILY = "capped_daily"
    BUDGET_EXHAUSTED = "budget_exhausted"
    OPTED_OUT = "opted_out"
    NO_PHONE = "no_phone"
    NO_ADDRESS = "no_address"
    COUNTRY_BLOCKED = "country_blocked"
    NO_CONSENT = "no_consent"
    NO_SENDER = "no_sender"
    # it cannot be written
    INVALID_CONTENT = "invalid_content"
    # nothing to decide yet
    WAIT = "wait"
    QUIET_HOURS = "quiet_hours"
    LIMITS_UNAVAILABLE = "limits_unavailable"
    # what happened afterwards
    WASTED_SMS = "wasted_sms"
    ADOPTED = "adopted"
    SENT_AGAIN = "sent_again"
    PROVIDER_CHOSEN = "provider_chosen"
    PROVIDER_CHANGED = "provider_changed"
    WITHDRAWN = "withdrawn"
    DELIVERY_REPORT = "delivery_report"
    DELIVERY_UNKNOWN = "delivery_unknown"


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

#: Verdicts after which a step is not needed; the steps behind it keep their own conditions and countdowns. After any other
#: the step was needed and could not go, and the next one is tried at once.
NOT_NEEDED = frozenset({Verdict.REACHED_IN_TIME, Verdict.NOTIFICATIONS_ENABLED, Verdict.ACCEPTED_UNCONFIRMED})

#: What becomes of the notification when its last step is skipped with this verdict; any other suppresses it.
OUTCOMES = {
    Verdict.REACHED_IN_TIME: NotificationState.REACHED,
    Verdict.NOTIFICATIONS_ENABLED: NotificationState.PUSHED,
    Verdict.ACCEPTED_UNCONFIRMED: NotificationState.PUSHED,
    Verdict.CANCELLED: NotificationState.CANCELLED,
    Verdict.INVALID_CONTENT: NotificationState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a step is due.

    Attributes:
        when: its trigger; ``None`` for a first step, which waits for nothing.
        before: state of the step that it follows; for a push ``skipped`` means that no device could show it. ``None``:
            there is none.
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
    match facts.when:
        case When.NOT_DELIVERED | None:
            return Verdict.REACHED_IN_TIME if facts.delivered or facts.clicked else Verdict.NOT_DELIVERED
        case When.NOT_CLICKED:
            return Verdict.REACHED_IN_TIME if facts.clicked else Verdict.NOT_CLICKED
        case When.NOTIFICATIONS_DISABLED:
            # Decided at send time: the push went out to a device that shows it. While it is still being tried it may
            # yet fail, and then the SMS is due.
            return Verdict.NOTIFICATIONS_ENABLED if facts.before is DeliveryState.SENT else Verdict.WAIT
