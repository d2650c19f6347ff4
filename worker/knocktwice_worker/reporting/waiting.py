"""The reason why an open notification waits right now, read from its rows, for ``knocktwice explain``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.lifecycle import WAITS_TURN, Delay, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Row


class Why(StrEnum):
    """The thing that a step waits for."""

    #: The time that it was asked for.
    SEND_AT = "send_at"
    #: A message about the same person or notification that was accepted earlier and is not carried out yet.
    EARLIER = "earlier"
    #: A turn in the pace of its sender; a limit of the provider lengthens the line.
    TURN = "turn"
    #: Another try, because the provider asked for patience or did not answer.
    RETRY = "retry"
    #: The provider's answer.
    PROVIDER = "provider"
    #: The countdown behind the step before it.
    COUNTDOWN = "countdown"
    #: The push before it, which no device has yet.
    PUSH = "push"
    #: An operator, who has paused messages of its kind.
    PAUSE = "pause"
    #: The end of the recipient's quiet hours.
    QUIET_HOURS = "quiet_hours"
    #: The longer wait of the share that shows who answers late.
    PROBE = "probe"
    #: A worker that takes it up.
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wait of one step.

    Attributes:
        step, channel: which step.
        why: what it waits for.
        until: until when, or when it is looked at next; ``None``: any moment.
        sentence: the same for people.
    """

    step: int
    channel: str
    why: Why
    until: datetime | None
    sentence: str


#: Trigger → what would make the step unnecessary.
_UNLESS = {
    "not_delivered": ", unless {before} is reported as delivered until then",
    "not_clicked": ", unless somebody clicks until then",
    "not_answered": ", unless somebody answers until then",
    "notifications_disabled": "",
    "delivered": ", if {before} is reported as delivered until then",
    "clicked": ", if somebody clicks until then",
}


def due_at(step: Row[Any], steps: Sequence[Row[Any]]) -> datetime | None:
    """Return when a step is due: the countdown behind a push counts from its hand-over (``store/due.py``)."""
    due: datetime | None = step.due_at
    push = next((s for s in steps if s.step == 0 and s.state == "sent" and s.claimed_at and s.finished_at), None)
    if step.step != 1 or push is None or due is None:
        return due
    late: timedelta = max(push.finished_at - push.claimed_at, timedelta())
    return due + late


def waits(
    now: datetime,
    steps: Sequence[Row[Any]],
    attempts: Sequence[Row[Any]],
    decisions: Sequence[Row[Any]],
    due: dict[int, datetime | None],
) -> Iterator[Waiting]:
    """Yield what each open step waits for.

    Args:
        now: the database's clock.
        steps, attempts, decisions: the notification's rows.
        due: step → when it is due.
    """
    push = next((s for s in steps if s.step == 0), None)
    for step in steps:
        if step.wake_at is None:
            continue
        quiet = _told_until(now, step, decisions, Delay.QUIET_HOURS)
        if told := _paused(now, step, decisions):
            yield told
            continue
        if (until := _told_until(now, step, decisions, Delay.PROBE)) and step.state == DeliveryState.SCHEDULED:
            drawn = f"The {_noun(step.channel)} was drawn to wait longer, until {_at(until)}, {_in(now, until)}, "
            yield Waiting(step.step, step.channel, Why.PROBE, until, drawn + "unless somebody answers.")
            continue
        if step.step == 0:
            yield _push(now, step, attempts)
        elif step.state == DeliveryState.SCHEDULED:
            handed_over = any(a.state == "sent" for a in attempts)
            open_push = push if push is not None and push.wake_at is not None and not handed_over else None
            yield _scheduled(now, step, open_push, due[step.step] or step.due_at, quiet, steps)
        else:
            yield _message(now, step, quiet)


def _push(now: datetime, push: Row[Any], attempts: Sequence[Row[Any]]) -> Waiting:
    def wait(why: Why, until: datetime | None, sentence: str) -> Waiting:
        return Waiting(0, push.channel, why, until, sentence)

    if push.state == DeliveryState.SENDING:
        told = f"The push is being handed over; without an answer by {_at(push.wake_at)} another worker makes it."
        return wait(Why.PROVIDER, push.wake_at, told)
    if push.claimed_at is None and push.due_at is not None and push.due_at > now:
        return wait(Why.SEND_AT, push.due_at, f"The push goes out at {_at(push.due_at)}, {_in(now, push.due_at)}.")
    until = max(push.wake_at, now)
    reasons = sorted({a.reason for a in attempts if a.state == "open" and a.reason})
    if push.claimed_at is None:
        told = f"The push waits for what was said before it and is not carried out yet; next look {_in(now, until)}."
        return wait(Why.EARLIER if push.wake_at > now else Why.WORKER, until, told)
    if reasons == [WAITS_TURN]:
        told = f"The push waits for its turn in the pace of all pushes; next try at {_at(until)}, {_in(now, until)}."
        return wait(Why.TURN, until, told)
    told = f"The push is tried again at {_at(until)}, {_in(now, until)}: {', '.join(reasons) or 'its worker died'}."
    return wait(Why.RETRY, until, told)


def _scheduled(
    now: datetime,
    step: Row[Any],
    open_push: Row[Any] | None,
    due: datetime,
    quiet: datetime | None,
    steps: Sequence[Row[Any]],
) -> Waiting:
    noun = _noun(step.channel)

    def wait(why: Why, until: datetime | None, sentence: str) -> Waiting:
        return Waiting(step.step, step.channel, why, until, sentence)

    if quiet is not None:
        return wait(Why.QUIET_HOURS, quiet, _asleep(now, noun, quiet))
    if open_push is not None and not _is_later(open_push, now):
        return wait(
            Why.PUSH, None, f"The {noun} waits for the push, which no device has yet; its countdown begins then."
        )
    if due > now:
        before = next((f"the {_noun(s.channel)}" for s in steps if s.step == step.after_step), "what went before")
        unless = _UNLESS.get(step.trigger or "", "").format(before=before)
        if step.trigger is None:
            return wait(Why.SEND_AT, due, f"The {noun} goes out at {_at(due)}, {_in(now, due)}.")
        return wait(Why.COUNTDOWN, due, f"The {noun} is due at {_at(due)}, {_in(now, due)}{unless}.")
    if step.wake_at > now:
        told = f"The {noun} is due and is looked at again at {_at(step.wake_at)}, {_in(now, step.wake_at)}."
        return wait(Why.EARLIER, step.wake_at, told)
    return wait(Why.WORKER, None, f"The {noun} is due and waits for a worker that decides about it.")


def _message(now: datetime, step: Row[Any], quiet: datetime | None) -> Waiting:
    noun, until = _noun(step.channel), max(step.wake_at, now)
    by = f" by {step.provider}" if step.provider else ""
    sender = f" from {step.sender}" if step.sender else ""

    def wait(why: Why, sentence: str, at: datetime | None = None) -> Waiting:
        return Waiting(step.step, step.channel, why, at or until, sentence)

    if step.state == DeliveryState.SENDING:
        if step.reason:
            told = (
                f"Nobody knows yet whether the {noun} went out{by} ({step.reason}); it is looked for at {_at(until)}, "
            )
            return wait(Why.PROVIDER, told + f"{_in(now, until)}.")
        told = f"The {noun} is being handed over{by}; without an answer by {_at(until)} it is looked for."
        return wait(Why.PROVIDER, told)
    if quiet is not None:
        return wait(Why.QUIET_HOURS, _asleep(now, noun, quiet), quiet)
    if step.reason == WAITS_TURN:
        told = f"The {noun}{sender} waits for its turn in the pace of its sender; next try at {_at(until)}, "
        return wait(Why.TURN, told + f"{_in(now, until)}.")
    if step.reason:
        told = f"The {noun} is tried again{by} at {_at(until)}, {_in(now, until)}: {step.reason}."
        return wait(Why.RETRY, told)
    return wait(Why.WORKER, f"The {noun} may go and waits for a worker that sends it.")


def _is_later(push: Row[Any], now: datetime) -> bool:
    """Whether the push waits for the time that it was asked for; the step behind it has its own time then."""
    return push.claimed_at is None and push.due_at is not None and push.due_at > now


def _paused(now: datetime, step: Row[Any], decisions: Sequence[Row[Any]]) -> Waiting | None:
    """Return for what a step waits that an operator has paused; ``None``: nobody has."""
    if step.paused is None or step.state not in (DeliveryState.SCHEDULED, DeliveryState.RESERVED):
        return None
    own = [d.inputs for d in decisions if d.step == step.step and d.verdict == Delay.PAUSED]
    if not own or step.wake_at <= now:
        return None
    told = f"The {_noun(step.channel)} waits, because an operator has paused {own[-1]['what']} ({own[-1]['reason']})"
    told += f"; without a resume it is looked at again at {_at(step.wake_at)}, {_in(now, step.wake_at)}."
    return Waiting(step.step, step.channel, Why.PAUSE, step.wake_at, told)


def _told_until(now: datetime, step: Row[Any], decisions: Sequence[Row[Any]], why: Delay) -> datetime | None:
    """Return the end of a wait that the ledger tells, while the step is in it."""
    own = [d for d in decisions if d.step == step.step and d.verdict == why and d.inputs.get("until")]
    until = datetime.fromisoformat(own[-1].inputs["until"]) if own else None
    return until if until is not None and until > now and step.wake_at > now else None


def _asleep(now: datetime, noun: str, until: datetime) -> str:
    return f"The {noun} waits for the end of this person's quiet hours at {_at(until)}, {_in(now, until)}."


def _noun(channel: str) -> str:
    if channel == "push":
        return channel
    return CHANNELS[channel].noun if channel in CHANNELS else f"{channel} message"


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _in(now: datetime, moment: datetime) -> str:
    """Return how far ahead a time is: ``in 4 min 10 s``, ``now``."""
    seconds = round(max(moment - now, timedelta()).total_seconds())
    if seconds == 0:
        return "now"
    parts = [(seconds // 86_400, "d"), (seconds // 3_600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return "in " + " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
