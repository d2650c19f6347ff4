"""What may not happen after something else was said, and what may not happen before its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle.case import WAITING
from oracle.records import Answer, Told
from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle.case import Case, World
    from oracle.records import PushAsked, SmsAsked

#: Seconds for which the push of a critical message is tried; then it is texted, as it cannot wait for an outage to end.
_CRITICAL_S = 60
#: How much earlier than its countdown an SMS may come: two clocks are read, and times are rounded.
EARLY_S = 0.5


def after_click(case: Case) -> Iterator[Finding]:
    """SMS that a receipt had made needless."""
    for text in case.texted:
        step = case.step(text)
        needless = [
            receipt
            for receipt in case.receipts
            if step is not None
            and receipt.told is Told.ACCEPTED
            and case.needs_no(step, receipt)
            and case.world.after(receipt.told_at, text.at)
        ]
        if needless:
            first = min(needless, key=lambda receipt: receipt.told_at)
            committed = [at for end in case.ends for kind, at in end.receipts if kind == first.kind]
            durable = f"committed after {min(committed) - first.told_at:.1f} s" if committed else "kept nowhere"
            story = f"texted {text.at - first.told_at:.1f} s after {first.kind!r} was accepted ({durable})"
            yield Finding(Violation.AFTER_CLICK, case.token, text.at, story)


def after_cancel(case: Case) -> Iterator[Finding]:
    """Messages of what had been cancelled."""
    said = [cancel.told_at for cancel in case.cancels if cancel.told is Told.ACCEPTED]
    messages: list[PushAsked | SmsAsked] = [*case.pushed, *case.texted]
    for message in messages:
        if said and case.world.after(min(said), message.at):
            kind = type(message).__name__.removesuffix("Asked")
            story = f"{kind} {message.at - min(said):.1f} s after the cancellation was accepted"
            yield Finding(Violation.AFTER_CANCEL, case.token, message.at, story)


def after_stop(world: World) -> Iterator[Finding]:
    """SMS to numbers that had said STOP."""
    for number, wishes in world.wishes.items():
        for text in world.texts_to[number]:
            before = [wish for wish in wishes if wish.asked_at <= text.at and wish.told is not Told.REFUSED]
            stops = [w for w in before if w.word == "STOP" and w.told is Told.ACCEPTED]
            if (
                text.sid is None
                or not stops
                or any(w.asked_at > stops[-1].asked_at for w in before if w.word != "STOP")
            ):
                continue
            # The first of several in a row counts.
            last_start = max((w.asked_at for w in before if w.word != "STOP"), default=0)
            said_at = min(w.told_at for w in stops if w.asked_at > last_start)
            if world.after(said_at, text.at):
                story = f"texted {text.at - said_at:.1f} s after STOP was accepted"
                yield Finding(Violation.AFTER_STOP, text.token or number, text.at, story)


def while_paused(world: World) -> Iterator[Finding]:
    """SMS of what an operator had paused."""
    for pause in world.evidence.pauses:
        if pause.told is not Told.ACCEPTED:
            continue
        for text in world.evidence.texts:
            if world.after(pause.told_at, text.at) and text.at < pause.until:
                story = f"texted {text.at - pause.told_at:.1f} s after SMS were paused"
                yield Finding(Violation.WHILE_PAUSED, text.token, text.at, story)


def push_after_sms(case: Case) -> Iterator[Finding]:
    """Pushes of what had been texted."""
    if not case.texted or not case.alone:
        return
    first = min(text.at for text in case.texted)
    for push in case.pushed:
        if case.world.after(first, push.at):
            story = f"pushed {push.at - first:.1f} s after its SMS"
            yield Finding(Violation.PUSH_AFTER_SMS, case.token, push.at, story)


def texted_by_our_delay(case: Case) -> Iterator[Finding]:
    """SMS before the push had its time."""
    if case.plan.push is None or not case.plan.steps or not case.alone:
        return
    step = case.plan.steps[0]
    for text in case.texted:
        if text.text != step.text or step.when not in WAITING:
            continue
        pushed = [push.at for push in case.pushed if push.at <= text.at and not _came_to_nothing(case, push, text.at)]
        refused = any(push.answer is Answer.REFUSED for push in case.pushes)
        if pushed and not refused and text.at < min(pushed) + step.after_s - EARLY_S:
            story = f"texted {text.at - min(pushed):.1f} s after the push, which had {step.after_s:g} s"
            yield Finding(Violation.TEXTED_BY_OUR_DELAY, case.token, text.at, story)
        elif not pushed and not refused and case.sure_devices and not _may_go_without(case, text.at):
            tries = f"{len(case.pushes)} tries of a push" if case.pushes else "no push was tried"
            story = f"texted without a push though there was a device ({tries})"
            yield Finding(Violation.TEXTED_BY_OUR_DELAY, case.token, text.at, story)


def _may_go_without(case: Case, at: float) -> bool:
    """Whether no push was needed: cancelled while the SMS was under way; or critical, and tried in vain.

    Tries that a broken wire keeps from the provider stand in no book: that it has tried, the system itself must say.
    """
    pushes = [step for end in case.ends for step in end.steps if step.number == 0]
    tried = any(step.state == "failed" and step.reason != "no_device" for step in pushes)
    if case.plan.prefers_repeat and tried and at > case.starts_at + _CRITICAL_S:
        return True
    return any(cancel.told is not Told.REFUSED and cancel.asked_at <= at for cancel in case.cancels)


def _came_to_nothing(case: Case, push: PushAsked, until: float) -> bool:
    """Whether nobody was told that a push was taken, and it could not be tried again as the device is gone."""
    untold = push.answer is Answer.TAKEN_UNTOLD
    return untold and case.plan.user is not None and case.gone_at(push.registration, until) is not None


def late(case: Case) -> Iterator[Finding]:
    """Messages long after they were due."""
    if not case.alone:
        return
    due = case.starts_at
    if case.plan.push is not None and case.pushes:
        first = min(push.at for push in case.pushes)
        yield from _late(case, "push", due, first)
        due = max(
            [push.at for push in case.pushes if push.at <= min((t.at for t in case.texted), default=first)] or [first]
        )
    for step in case.plan.steps:
        texts = [text.at for text in case.texted if text.text == step.text]
        if not texts:
            return
        if step.when is not None:
            due += step.after_s
        yield from _late(case, "SMS", due, min(texts))
        due = min(texts)


def _late(case: Case, what: str, due: float, at: float) -> Iterator[Finding]:
    if at > case.world.excused_until(due, at):
        yield Finding(Violation.LATE, case.token, at, f"{what} {at - due:.1f} s after it was due")
