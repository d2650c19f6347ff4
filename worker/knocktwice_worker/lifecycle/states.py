"""The states of notifications, of their deliveries and attempts, and the changes of state that the store may make."""

from __future__ import annotations

from enum import StrEnum


class NotificationState(StrEnum):
    """The state of a notification."""

    # All but the first are terminal and never change again, except by REOPENED, FAILED_LATER and ANSWERED_LATER.

    #: A step may still go out.
    ACTIVE = "active"
    #: A receipt made the remaining steps unnecessary, or somebody clicked after the end.
    REACHED = "reached"
    #: The push went out, and no later step was needed or planned.
    PUSHED = "pushed"
    #: A provider accepted the message of a later step.
    TEXTED = "texted"
    #: A later step was needed but not allowed, or no device could show the push.
    SUPPRESSED = "suppressed"
    #: No message went out, for a technical reason.
    FAILED = "failed"
    #: The last message may or may not have gone out.
    UNKNOWN = "unknown"
    #: The application cancelled it.
    CANCELLED = "cancelled"
    #: Its idempotency key was used before; nothing was sent.
    DUPLICATE = "duplicate"


#: Ends without an answer: a click that comes later makes them ``reached``. After a message went out (``texted``) the
#: end stays, and the click is noted as a wasted SMS.
ANSWERED_LATER = frozenset({NotificationState.PUSHED, NotificationState.SUPPRESSED, NotificationState.FAILED})


class DeliveryState(StrEnum):
    """The state of a delivery, which is one step of a notification."""

    #: Waits until its ``wake_at``.
    SCHEDULED = "scheduled"
    #: The step is needed and its message is counted against the limits; a sender has yet to claim it. Later steps only.
    RESERVED = "reserved"
    #: A sender has claimed it, until its lease ends.
    SENDING = "sending"
    #: The provider accepted the message.
    SENT = "sent"
    #: The provider refused the message for good, it cannot be written for the person, or there is no device.
    FAILED = "failed"
    #: The provider may or may not have accepted the message.
    UNKNOWN = "unknown"
    #: Not needed, not allowed, or overtaken by a later step.
    SKIPPED = "skipped"
    #: The application cancelled it.
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """The state of an attempt, which is the push to one device."""

    #: Not sent yet, or to be sent again.
    OPEN = "open"
    #: The provider accepted the push.
    SENT = "sent"
    #: The provider refused the push, or the device belongs to another user now.
    REJECTED = "rejected"


#: States of a delivery that is not finished. Exactly the rows in these states have a ``wake_at``.
OPEN = frozenset({DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING})

#: Every change of a delivery's state that the store may make.
EDGES: frozenset[tuple[DeliveryState, DeliveryState]] = frozenset(
    {
        # waiting for its time → picked up, or no longer wanted
        (DeliveryState.SCHEDULED, DeliveryState.SENDING),
        (DeliveryState.SCHEDULED, DeliveryState.RESERVED),
        (DeliveryState.SCHEDULED, DeliveryState.SKIPPED),
        (DeliveryState.SCHEDULED, DeliveryState.FAILED),
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

#: What a provider's late report may do with a message that went to nobody for a reason that the operator must mend.
FAILED_LATER: frozenset[tuple[DeliveryState, DeliveryState]] = frozenset({(DeliveryState.SENT, DeliveryState.RESERVED)})


class ProviderState(StrEnum):
    """A provider's report about a message, weakest first. Reports may come in any order; the strongest one is kept."""

    #: The message is on its way to the mobile operator.
    SENT = "sent"
    #: The provider could not send the message.
    FAILED = "failed"
    #: The mobile operator did not deliver the message.
    UNDELIVERED = "undelivered"
    #: The message is on the phone.
    DELIVERED = "delivered"
    #: A person opened the message.
    READ = "read"


#: The reports of a message that will not arrive.
LOST = frozenset({ProviderState.FAILED, ProviderState.UNDELIVERED})
