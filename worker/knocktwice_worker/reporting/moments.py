"""The moments of a story: a sentence for each thing that happened to a notification, was decided or is due."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_shared.counted import many
from knocktwice_shared.test_side import is_test
from knocktwice_worker.audience.profile import ending
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content.links.link_store import LINK
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import Evidence, Note
from knocktwice_worker.notation.masking import ERASED, mask_or_erased
from knocktwice_worker.reporting.provider_status import error_code, taken_by
from knocktwice_worker.reporting.waiting import due_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Row

#: The meaning of each verdict for people; "SMS" stands for the message of any later step.
VERDICTS = {
    "not_delivered": "No device had reported the push as delivered, so the SMS was due.",
    "not_clicked": "Nobody had clicked the push, so the SMS was due.",
    "not_answered": "Nobody had answered, so the SMS was due.",
    "notifications_disabled": "No device could show the push (notifications are off), so the SMS was due.",
    "push_failed": "The push could not go out at all, so the SMS was due at once.",
    "first_step": "Nothing comes before it, so it was due at once.",
    "step_failed": "The step before it could not go out, so it was due at once.",
    "undelivered": "What the step before it sent will not arrive, so it was due at once.",
    "follows_delivery": "What the step before it sent had arrived, so the SMS that follows that was due.",
    "follows_click": "Somebody had clicked, so the SMS that follows that was due.",
    "no_receipt": "The receipt that it follows had not come: no SMS.",
    "nothing_to_follow": "The step before it could not go out or did not arrive, so there is nothing to follow: no SMS.",
    "reached_in_time": "It was answered in time: no SMS.",
    "notifications_enabled": "The push went to a device that shows it, which is all this plan asks for: no SMS.",
    "accepted_unconfirmed": "Apps like this person's never report deliveries, so FCM's word is enough: no SMS.",
    "cancelled": "The application cancelled it.",
    "duplicate_30s": "The same text had just gone to this number: no SMS.",
    "capped_daily": "This number had its SMS for the calendar day: no SMS.",
    "budget_exhausted": "The day's budget of SMS parts had no room for it (KNOCKTWICE_SMS_BUDGET…): no SMS.",
    "opted_out": "This number asked not to be texted: no SMS.",
    "no_phone": "No phone number is known: no SMS.",
    "invalid_number": "The number cannot be texted ({number}): no SMS.",
    "untextable": "Messages do not reach this number, says the provider ({untextable}): no SMS.",
    "shared_number": "Somebody else with this number gets the blast's SMS: no second one.",
    "number_changed": "The number that it was to go to is not theirs any more: no SMS.",
    "no_address": "No address of this person's is known on that channel: no SMS.",
    "country_blocked": "SMS to this country are not allowed here (KNOCKTWICE_SMS_COUNTRIES): no SMS.",
    "no_sender": "Nobody is set to send it here ({setting}): no SMS.",
    "no_consent": "It is marketing, and this person has not agreed to be texted: no SMS.",
    "invalid_content": "The SMS could not be written for this person. {problem}",
    "too_late": "It had been due for so long that it was of no use any more (KNOCKTWICE_USELESS_AFTER…): no SMS.",
    "quiet_hours": "It is night where this person lives: the SMS waits for the morning.",
    "brake": "The SMS is held by brake {brake} since {since}, because {why}.",
    "brake_released": "The SMS was released from brake {brake}: {reason}.",
    "paused": "It waits, because an operator has paused {what} since {since}: {reason}.",
    "dropped": "An operator dropped the SMS that brake {brake} held: {reason}.",
    "held_out": "It was drawn for the share that is not texted (KNOCKTWICE_HOLDOUT_SHARE): no SMS.",
    "probe": "It was drawn for the share that waits longer (KNOCKTWICE_PROBE_SHARE), until {until}.",
    "wasted_sms": "A receipt came after the last look before the SMS: it was not needed.",
    "adopted": "Its outcome had been lost; the provider's list shows that it went out.",
    "delivery_report": "The provider reported what became of the SMS.",
    "delivery_unknown": "The provider never said whether the SMS arrived, and nobody waits for it any longer.",
    "sent_again": "Its outcome had been lost, and it is sent again: {reason}.",
    "reopened": "An operator had the SMS taken up again, although its outcome is unknown: {reason}.",
    "failed_later": "{provider} had taken the SMS and sent it to nobody ({reason}): it is tried again, {time} of {most}.",
    "closed": "An operator took the unknown outcome of the SMS as settled: {reason}.",
    "provider_chosen": "{provider} is to send the SMS ({why}).",
    "provider_changed": "{from} did not take the SMS ({reason}), so {to} is to send it.",
    "clock_jumped": "The database's clock had been ahead and came back: this slept until {slept_until}, and was woken.",
    "withdrawn": "The apps were told to take the push off the screen.",
    "would_have_sent": "Here a provider would have got it.",
}

#: States in which the provider has a message, or may have it.
_HANDED_OVER = frozenset({"sending", "sent", "failed", "unknown"})


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the story: when, what kind of thing, and a sentence."""

    at: datetime
    kind: str
    sentence: str


def moments(found: Row[Any], rows: Mapping[str, Sequence[Row[Any]]]) -> Iterator[Moment]:
    """Yield the moments of a notification, in no order.

    Args:
        found: its own row, with what its batch and blast say of it.
        rows: its rows in other tables, by the table's name.
    """
    steps = rows["deliveries"]
    later = any(s.due_at > found.created_at for s in steps if s.due_at and s.trigger is None)
    waits = "it waits for the time it was asked for" if later else "its countdown started"
    source = "" if found.blast is None else f" as one of the blast {found.blast}"
    test = " as a test, for which no provider is called" if is_test(found.project) else ""
    yield Moment(found.created_at, "accepted", f"Accepted{test}{source}; {waits}.")
    attempts, decisions = rows["attempts"], rows["decisions"]
    adopted = {decision.step for decision in decisions if decision.verdict == Note.ADOPTED}
    for step in steps:
        if step.channel == "push":
            yield from _of_push(step, attempts)
        else:
            yield from _of_message(step, due_at(step, steps), adopted=step.step in adopted)
    for event in rows["events"]:
        if event.kind != "cancelled":
            yield Moment(event.received_at, event.kind, _received(event, steps))
    for decision in decisions:
        yield Moment(decision.at, decision.verdict, _decided(decision, steps, test=is_test(found.project)))
    if found.finished_at:
        yield Moment(found.finished_at, found.state, f"Ended as {found.state}: {found.reason}.")


def _of_push(step: Row[Any], attempts: Sequence[Row[Any]]) -> Iterator[Moment]:
    at = step.finished_at or step.claimed_at
    if step.claimed_at is None and step.state == "scheduled":
        yield Moment(step.due_at, "scheduled", "Here the push goes out.")
        return
    if not attempts and step.claimed_at != step.finished_at:
        # The devices are written down with their answers. Without any, nobody knows whether the push has left.
        told = "No device's answer to the push was written down."
        if step.state == "sending":
            told = "The push is under way; no device has answered yet."
        yield Moment(step.claimed_at or at, "push", told)
        return
    if step.claimed_at is None or not attempts:
        yield Moment(at, "push", f"No push was made: {step.reason}.")
        return
    given = max((attempt.place for attempt in attempts if attempt.place is not None), default=-1) + 1
    for n, attempt in enumerate(attempts, 1):
        taken = "is a test, and went nowhere" if attempt.provider_id == STAND_IN else "was taken by the provider"
        outcome = {"sent": taken, "rejected": "was refused", "open": "has no answer yet"}[attempt.state]
        if attempt.state == "rejected" and attempt.reason == "notifications_disabled":
            outcome = "was not made"
        reason = f" ({attempt.reason})" if attempt.reason else ""
        place = n if attempt.place is None else attempt.place + 1
        device = f"device {place} of {given or len(attempts)}, {device_ending(attempt.registration)},"
        yield Moment(at, "push", f"Push to {device} {outcome}{reason}.")


def device_ending(registration: str) -> str:
    """Return the ending of a registration; nothing is left of it once its person was erased."""
    return "an erased one" if registration.startswith("erased-") else ending(registration)


def _of_message(step: Row[Any], due: datetime | None, *, adopted: bool) -> Iterator[Moment]:
    """Yield what became of a message.

    A claim is no hand-over: after its claim a sender looks once more, and may leave the message. A message that was
    found in the provider's list had been taken some time before.
    """
    name = _noun(step.channel)
    if step.claimed_at:
        tries = "" if step.tries == 1 else f" (try {step.tries})"
        left = "" if step.state in _HANDED_OVER else "; the provider has not taken it"
        yield Moment(
            step.claimed_at, step.channel, f"A sender took up the {name} to {mask_or_erased(step.number)}{tries}{left}."
        )
    if step.state == "sent" and step.provider != STAND_IN:
        provider = taken_by(step.step, step.provider, step.provider_id) or "The provider"
        when = ", at an earlier time than this, at which it was found" if adopted else ""
        yield Moment(step.finished_at, step.channel, f"{provider} took the {name} as {step.provider_id}{when}.")
    elif step.state == "failed":
        yield Moment(step.finished_at, step.channel, f"The {name} failed: {step.reason}.")
    elif step.state == "scheduled":
        yield Moment(due or step.due_at, "countdown", f"Here the {'fallback' if step.step == 1 else name} is due.")
    if step.provider_status:
        error = f" (error {code})" if (code := error_code(step)) else ""
        yield Moment(
            step.provider_status_at, "reported", f"The provider reported the {name} as {step.provider_status}{error}."
        )


def _decided(decision: Row[Any], steps: Sequence[Row[Any]], *, test: bool) -> str:
    sentence: str = VERDICTS.get(decision.verdict, decision.verdict).replace("SMS", _name(decision.step, steps))
    if test:
        sentence = _of_test(decision, steps) or sentence
    # Of somebody who was erased the inputs are gone.
    inputs = decision.inputs or {}
    if "{" in sentence:
        settings = {"setting": _sender_setting(decision.step, steps)}
        sentence = sentence.format_map(defaultdict(str, settings | inputs)).rstrip()
    if (own := inputs.get("project")) and own.get("refused"):
        sentence += f" It is a limit of the project {own.get('name')}'s own."
    if watched := inputs.get("would_be_stopped_by"):
        sentence += f" Rules that are only watched would have stopped it: {', '.join(watched)}."
    return sentence


def _of_test(decision: Row[Any], steps: Sequence[Row[Any]]) -> str | None:
    """Return the sentence about what would have gone out; ``None``: it is the same as without a test."""
    inputs = defaultdict(str, decision.inputs or {})
    if decision.verdict == Note.WITHDRAWN:
        return "The apps would have been told to take the push off the screen."
    if decision.verdict != Note.WOULD_HAVE_SENT:
        return None
    if decision.step == 0:
        return f"Here the push would have gone to {many(int(inputs['devices'] or 0), 'device')}."
    sender = f" from {inputs['from']}" if inputs["from"] else ""
    size = f", {many(inputs['parts'], 'part')}" if inputs["parts"] else ""
    price = f", for {inputs['price']}" if inputs["price"] else ""
    to = inputs["to"] or ERASED
    return f"Here the {_name(decision.step, steps)} would have gone to {to}{sender}{size}{price}."


def _received(event: Row[Any], steps: Sequence[Row[Any]]) -> str:
    if event.kind == Evidence.SEEN:
        return "The person has seen elsewhere what it says."
    if event.kind == Evidence.REPLIED:
        return f"The person replied to the {_name(event.step, steps)}."
    if event.step == 0:
        return f"A device reported the push as {event.kind}."
    if event.registration.startswith(LINK):
        return f"The link in the {_name(event.step, steps)} was opened."
    return f"The {_name(event.step, steps)} was {'answered' if event.kind == 'clicked' else event.kind}."


def _name(step: int, steps: Sequence[Row[Any]]) -> str:
    """Return what a step sends, for a sentence."""
    return next((_noun(s.channel) for s in steps if s.step == step and s.step > 0), "SMS")


def _noun(channel: str) -> str:
    """Return what a channel's messages are called; a channel that this process does not know has its name."""
    return CHANNELS[channel].noun if channel in CHANNELS else f"{channel} message"


def _sender_setting(step: int, steps: Sequence[Row[Any]]) -> str:
    return next((CHANNELS[s.channel].sender_setting for s in steps if s.step == step and s.channel in CHANNELS), "")
