"""The life of a notification: its states, the allowed edges, and the one decision that matters. Pure; no I/O.

A *notification* is ``active`` until it reaches one terminal state. It consists of *deliveries*, one per step: step 0 is
the push, if there is one, and steps 1, 2, … follow it. The delivery of a step is created when the step before it has
ended, so at most one later step is open at a time. An unfinished delivery always has a ``wake_at``: the moment at which
a worker must look at it again. The dispatcher publishes its task then. This one column serves as the countdown, the
retry and the recovery after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from knocktwice_shared.messages import When

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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


class Untextable(StrEnum):
    """The reason why messages do not reach a number, as a provider tells it."""

    #: The number is a landline, or its operator takes no messages.
    LANDLINE = "landline"
    #: The number is out of service.
    UNKNOWN_NUMBER = "unknown_number"
    #: The provider takes it for no number at all, or for none that can be texted.
    INVALID_NUMBER = "invalid_number"
    #: Its owner or operator blocks our messages.
    BLOCKED = "blocked"
    #: The phone is switched off or out of reach. It counts only after some failures over some days.
    UNREACHABLE = "unreachable"


#: The reports of a message that will not arrive.
LOST = frozenset({ProviderState.FAILED, ProviderState.UNDELIVERED})


class PushTrouble(StrEnum):
    """A trouble with the pushes of many people at once, so that a brake holds the messages that would follow."""

    #: The provider refuses them for a reason that is not the device's, such as a lapsed APNs key.
    REFUSED = "refused"
    #: Hardly any is reported as delivered, although such apps usually report it.
    UNDELIVERED = "undelivered"
    #: Not one is clicked, although the template's usually are.
    UNCLICKED = "unclicked"


class TextTrouble(StrEnum):
    """A trouble with many single messages at once, so that a brake holds or slows what would follow."""

    #: Somebody asks for messages to numbers whose operator pays them for the traffic. Nobody reads those messages.
    PUMPING = "pumping"


class BrakeState(StrEnum):
    """The state of a brake."""

    #: It holds messages.
    ON = "on"
    #: The share is usual again; it holds nothing new.
    OVER = "over"
    #: An operator released it; it holds nothing any more.
    RELEASED = "released"


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


def triggers_answered_by(evidence: Evidence) -> list[When]:
    """Return the triggers whose steps become unnecessary with such evidence."""
    return [when for when in When if evidence in TRIGGERS[when].answered_by]


#: The triggers that wait for more than that a message was read.
NOT_BY_READING = [
    when for when in When if TRIGGERS[when].answered_by and Evidence.READ not in TRIGGERS[when].answered_by
]


def answers(evidence: Evidence, *, of_step: int, trigger: When | None, after_step: int) -> bool:
    """Return whether evidence makes an open step unnecessary.

    Args:
        evidence: what is known.
        of_step: the step that it is about.
        trigger: the open step's trigger; ``None``: the step waits for nothing.
        after_step: the step that the open step follows.
    """
    return trigger in triggers_answered_by(evidence) and (evidence is not Evidence.DELIVERED or of_step >= after_step)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts from which :func:`decide` decides about a step that is due.

    Attributes:
        when: its trigger; ``None`` for a first step, which waits for nothing.
        before: state of the step that it follows; for a push ``skipped`` means that no device could show it, and an open
            state that no device has it yet. ``None``: there is none.
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
