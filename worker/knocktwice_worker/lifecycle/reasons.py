"""The words of the ledger: why a step was needed, was not needed, was refused or delayed, and what happened later."""

from __future__ import annotations

from enum import StrEnum

from knocktwice_worker.lifecycle.states import NotificationState


class Verdict(StrEnum):
    """The answer of :func:`decide` about a step that is due. The ledger and ``knocktwice explain`` use these words."""

    # The step is needed.
    #: The step before it was not confirmed as delivered in time.
    NOT_DELIVERED = "not_delivered"
    #: The step before it was not clicked in time.
    NOT_CLICKED = "not_clicked"
    #: Nobody has answered in time: by a reply, a click, or by having seen it elsewhere.
    NOT_ANSWERED = "not_answered"
    #: The person has devices, but none of them shows notifications.
    NOTIFICATIONS_DISABLED = "notifications_disabled"
    #: The push could not go out.
    PUSH_FAILED = "push_failed"
    #: There is no step before it.
    FIRST_STEP = "first_step"
    #: The step before it could not go out.
    STEP_FAILED = "step_failed"
    #: The provider reports that the message of the step before it will not arrive.
    UNDELIVERED = "undelivered"
    #: It follows what was delivered, and that has arrived.
    FOLLOWS_DELIVERY = "follows_delivery"
    #: It follows a click, and there was one.
    FOLLOWS_CLICK = "follows_click"

    # The step is not needed.
    #: The receipt that its trigger asks for came in time.
    REACHED_IN_TIME = "reached_in_time"
    #: The push went out to a device that shows it.
    NOTIFICATIONS_ENABLED = "notifications_enabled"
    #: The push went only to devices that never send receipts, and the policy accepts this.
    ACCEPTED_UNCONFIRMED = "accepted_unconfirmed"
    #: The receipt that it follows has not come by its time.
    NO_RECEIPT = "no_receipt"
    #: It follows a receipt, and the step before it could not go out or will not arrive, so that none can come.
    NOTHING_TO_FOLLOW = "nothing_to_follow"
    #: The application cancelled the notification.
    CANCELLED = "cancelled"

    # Nothing can be decided yet.
    #: No device has the push yet, and it is still being tried.
    WAIT = "wait"


class Refusal(StrEnum):
    """The reason why a needed step does not go out, as the ledger and the notification's reason state it."""

    #: The number got the same text a moment ago.
    DUPLICATE_CONTENT = "duplicate_30s"
    #: The number has got as many messages today as the limit allows.
    CAPPED_DAILY = "capped_daily"
    #: The day's SMS parts are used up.
    BUDGET_EXHAUSTED = "budget_exhausted"
    #: The owner of the number opted out.
    OPTED_OUT = "opted_out"
    #: The person has no phone number.
    NO_PHONE = "no_phone"
    #: The number cannot exist, is not assigned to anybody, or is of a kind that is not texted.
    INVALID_NUMBER = "invalid_number"
    #: Providers have told that messages of this kind do not reach the number.
    UNTEXTABLE = "untextable"
    #: Somebody else with this number gets the blast's message.
    SHARED_NUMBER = "shared_number"
    #: The number that the message was reserved for does not belong to the person any more.
    NUMBER_CHANGED = "number_changed"
    #: The person has no address of the kind that the step's channel needs.
    NO_ADDRESS = "no_address"
    #: Messages to the number's country are not allowed.
    COUNTRY_BLOCKED = "country_blocked"
    #: The message is marketing, and the person has not agreed to marketing.
    NO_CONSENT = "no_consent"
    #: No provider is configured for the step's channel.
    NO_SENDER = "no_sender"
    #: The text cannot be written for this person.
    INVALID_CONTENT = "invalid_content"
    #: So long after it was due the message is of no use any more.
    TOO_LATE = "too_late"
    #: An operator dropped it while a brake held it.
    DROPPED = "dropped"
    #: It belongs to the share that is not texted, so that one sees what the messages are worth.
    HELD_OUT = "held_out"


class Delay(StrEnum):
    """The reason why a step that is needed and allowed goes out later."""

    #: The recipient's local time is within the quiet hours.
    QUIET_HOURS = "quiet_hours"
    #: Redis is down, and marketing must not go out without being counted there.
    LIMITS_UNAVAILABLE = "limits_unavailable"
    #: The share that falls back has jumped among people like the recipient, so a brake holds the message.
    BRAKE = "brake"
    #: An operator has paused messages of its kind.
    PAUSED = "paused"
    #: It belongs to the share that waits longer, so that one sees who would have answered by then.
    PROBE = "probe"


#: Why an open push or message waits that has no turn in the pace yet, as its row says it.
WAITS_TURN = "waits its turn"


class Note(StrEnum):
    """An event after the decision, as the ledger records it."""

    #: A later receipt shows that the SMS was not needed.
    WASTED_SMS = "wasted_sms"
    #: The provider's list shows that a message of unknown outcome went out.
    ADOPTED = "adopted"
    #: A message of unknown outcome is sent once more.
    SENT_AGAIN = "sent_again"
    #: An operator has a message of unknown outcome sent again, or first looked for.
    REOPENED = "reopened"
    #: The provider took the message and reported later that it failed for what the operator must mend; it is sent
    #: again.
    FAILED_LATER = "failed_later"
    #: An operator takes an unknown outcome as settled.
    CLOSED = "closed"
    #: A message that a brake held may go.
    BRAKE_RELEASED = "brake_released"
    #: Which of several providers sends it, and why.
    PROVIDER_CHOSEN = "provider_chosen"
    #: A provider did not accept the message, and another provider gets it.
    PROVIDER_CHANGED = "provider_changed"
    #: The push was taken off the screens.
    WITHDRAWN = "withdrawn"
    #: It is a test: a provider would have got it, and did not.
    WOULD_HAVE_SENT = "would_have_sent"
    #: The provider sent its last report about the message.
    DELIVERY_REPORT = "delivery_report"
    #: The provider sent no last report in time.
    DELIVERY_UNKNOWN = "delivery_unknown"
    #: The database's clock was ahead and came back, and the step slept until a time that was never meant.
    CLOCK_JUMPED = "clock_jumped"


#: All words that the ledger may contain.
Entry = Verdict | Refusal | Delay | Note

#: Verdicts after which the step is sent.
FALL_BACK = frozenset(
    {
        Verdict.NOT_DELIVERED,
        Verdict.NOT_CLICKED,
        Verdict.NOT_ANSWERED,
        Verdict.NOTIFICATIONS_DISABLED,
        Verdict.PUSH_FAILED,
        Verdict.FIRST_STEP,
        Verdict.STEP_FAILED,
        Verdict.UNDELIVERED,
        Verdict.FOLLOWS_DELIVERY,
        Verdict.FOLLOWS_CLICK,
    }
)

#: Verdicts of a step that follows a receipt which has not come. The notification ends as if the step had not been
#: there.
NOT_FOLLOWED = frozenset({Verdict.NO_RECEIPT, Verdict.NOTHING_TO_FOLLOW})

#: Verdicts after which the step is not needed. The steps after it keep their own triggers and countdowns, and look at
#: the step that this one looked at. (After a refusal, by contrast, the next step is tried at once.)
NOT_NEEDED = NOT_FOLLOWED | {Verdict.REACHED_IN_TIME, Verdict.NOTIFICATIONS_ENABLED, Verdict.ACCEPTED_UNCONFIRMED}

#: Words after which no later step is tried either.
ENDS_ALL: frozenset[Entry] = frozenset({Verdict.CANCELLED, Refusal.TOO_LATE, Refusal.DROPPED})

#: What becomes of the notification when its last step ends with this word; any other suppresses it.
OUTCOMES: dict[Entry, NotificationState] = {
    Verdict.REACHED_IN_TIME: NotificationState.REACHED,
    Verdict.NOTIFICATIONS_ENABLED: NotificationState.PUSHED,
    Verdict.ACCEPTED_UNCONFIRMED: NotificationState.PUSHED,
    Verdict.CANCELLED: NotificationState.CANCELLED,
    Refusal.INVALID_CONTENT: NotificationState.FAILED,
}
