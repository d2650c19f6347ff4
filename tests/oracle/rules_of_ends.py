"""How it must have ended, and what the system must say of that."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from oracle.case import SUCCESS
from oracle.records import Answer, Told
from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oracle.case import Case, World
    from oracle.records import End, Step

#: Of ended steps: those that say that nothing was sent.
_NOT_SENT = frozenset({"skipped", "failed", "cancelled"})
#: States of a notification with one SMS that went out.
_SHOWS_AN_SMS = frozenset({"texted", "unknown", "active"})
#: So often an SMS that its provider failed later is certainly sent again.
_AGAIN = 3
#: How often a list must have been read for its word to count.
_LISTS = 2
#: How long a leak must be watched (seconds), and what may come on top: things, bytes, and keys in all.
_SOAK_S, _MORE, _MORE_BYTES, _KEYS = 600, 16, 30 * 2**20, 100


def lost(case: Case) -> Iterator[Finding]:
    """What was accepted and did not happen."""
    if not case.accepted or case.cancels or not _is_over(case):
        return
    if not case.ends:
        yield _lost(case, "there is no row of it")
        return
    if any(end.state == "active" for end in case.ends):
        return  # Stuck, not lost.
    if case.plan.test:
        return  # Nothing of it is sent.
    yield from _not_sent_again(case)
    answers = [*(push.answer for push in case.pushes), *(text.answer for text in case.texts)]
    if case.texted or Answer.REFUSED in answers:
        return
    lists = case.world.lists_read(case.numbers, max((text.at for text in case.texts), default=case.starts_at))
    if all(end.state == "unknown" for end in case.ends) and lists < _LISTS:
        return  # Nobody can say, and that is what it says.
    state = ", ".join(f"{end.state}: {end.reason}" for end in case.ends)
    seen = f"({state}; {len(case.pushes)} tries of a push, {len(case.texts)} of an SMS; list read {lists} times since)"
    elsewhere = any(receipt.kind == "seen" and receipt.told is not Told.REFUSED for receipt in case.receipts)
    if case.plan.push is not None and case.sure_devices and not case.pushed and not elsewhere:
        yield _lost(case, f"neither push nor SMS {seen}")
    elif case.alone and _was_due(case):
        yield _lost(case, f"an SMS was due {seen}")


def lost_receipt(world: World) -> Iterator[Finding]:
    """Receipts and STOPs that were accepted and are not kept."""
    kept = {(end.id, kind) for end in world.evidence.ends for kind, _ in end.receipts}
    ended = {end.id for end in world.evidence.ends}
    for receipt in world.evidence.receipts:
        if receipt.told is Told.ACCEPTED and receipt.id in ended and (receipt.id, receipt.kind) not in kept:
            story = f"{receipt.kind!r} was accepted and is kept nowhere"
            yield Finding(Violation.LOST_RECEIPT, receipt.token, receipt.told_at, story)
    for number, wishes in world.wishes.items():
        said = [wish for wish in wishes if wish.told is not Told.REFUSED]
        last = said[-1] if said else None
        if last and last.word == "STOP" and last.told is Told.ACCEPTED and number not in world.evidence.opted_out:
            yield Finding(Violation.LOST_RECEIPT, number, last.told_at, "STOP was accepted, and it may be texted")


def untold(case: Case) -> Iterator[Finding]:
    """What nobody is told of."""
    known = {step.provider_id for end in case.ends for step in end.steps}
    if case.ends and not any(end.state == "active" for end in case.ends):
        unknown = any(end.state == "unknown" for end in case.ends)
        for text in case.reached:
            if text.sid not in known and not (unknown and case.world.lists_read(case.numbers, text.at) < _LISTS):
                states = ", ".join(end.state for end in case.ends)
                story = f"no row has the SMS {text.sid} ({text.answer}); it ended as {states}"
                yield Finding(Violation.UNTOLD, case.token, text.at, story)
    for end in case.ends:
        at = end.finished_at or end.created_at
        if end.state != "active" and not end.reason:
            yield Finding(Violation.UNTOLD, case.token, at, f"ended as {end.state} without a reason")
        for step in end.steps:
            if step.state in _NOT_SENT and not step.reason:
                yield Finding(Violation.UNTOLD, case.token, at, f"step {step.number} {step.state} without a reason")


def stuck(world: World) -> Iterator[Finding]:
    """What has not ended."""
    for case in world.cases.values():
        for end in case.ends:
            if end.state == "active" and _is_over(case):
                steps = ", ".join(f"{step.number} {step.state}" for step in end.steps)
                yield Finding(Violation.STUCK, case.token, world.evidence.ended_at, f"not ended; steps: {steps}")
    if world.evidence.unprocessed:
        story = f"{world.evidence.unprocessed} accepted messages that nobody works on"
        yield Finding(Violation.STUCK, "inbox", world.evidence.ended_at, story)


def false_story(case: Case) -> Iterator[Finding]:
    """What the system says and the provider's books do not."""
    if case.plan.test:
        return
    ends = [end for end in case.ends if end.state != "duplicate"]
    for end in ends:
        at = end.finished_at or end.created_at
        for story in _contradictions(case, end):
            yield Finding(Violation.FALSE_STORY, case.token, at, story)
    texted = sum(end.state == "texted" for end in ends)
    if texted > len(case.texted) and all(len(end.steps) < 3 for end in ends):
        at = max(end.finished_at or 0 for end in ends)
        yield Finding(Violation.FALSE_STORY, case.token, at, f"{texted} texted, {len(case.texted)} in the books")


def leak(world: World) -> Iterator[Finding]:
    """What only grows."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sample in world.evidence.samples:
        series[sample.of, sample.what].append((sample.at, sample.value))
    for (of, what), values in series.items():
        values.sort()
        start, end = values[0][0], values[-1][0]
        if what == "keys":
            if values[-1][1] > _KEYS:
                yield Finding(Violation.LEAK, of, end, f"{values[-1][1]:.0f} keys without expiry")
        elif end - start >= _SOAK_S:
            # While faults cut connections there are few, so the most that there were counts.
            usual = max if what == "connections" else median
            early = usual(_between(values, start + (end - start) / 4, start + (end - start) / 2))
            late = median(_between(values, end - (end - start) / 4, end))
            allowed = max(early / 4, _MORE_BYTES) if what == "memory" else _MORE
            if late - early > allowed:
                yield Finding(Violation.LEAK, of, end, f"{what} grew from {early:,.0f} to {late:,.0f}")


def _lost(case: Case, story: str) -> Finding:
    return Finding(Violation.LOST, case.token, case.plan.told_at, story)


def _not_sent_again(case: Case) -> Iterator[Finding]:
    """What the provider sent to nobody, and nobody sent again although nothing stood against it."""
    failures = [f for f in case.world.evidence.failures if f.token == case.token and f.told is Told.ACCEPTED]
    # A report whose answer the provider did not get may be kept nowhere.
    if {text.sid for text in case.texted} - {failure.sid for failure in failures}:
        return
    alone = case.alone and len(case.plan.steps) == 1 and not case.plan.prefers_repeat
    if not failures or not alone or case.receipts or len(failures) > _AGAIN:
        return
    if any(case.world.wishes.get(number) for number in case.numbers):
        return
    story = f"{len(case.texted)} SMS, of all of which the provider said that they went to nobody"
    yield _lost(case, story)


def _is_over(case: Case) -> bool:
    """Whether all of its plan had its time, also after the last fault."""
    world = case.world
    planned = case.starts_at + sum(step.after_s for step in case.plan.steps)
    last = max([planned, *(fault.until for fault in world.evidence.faults)])
    return last + world.rules.recovery_s <= world.evidence.ended_at


def _was_due(case: Case) -> bool:
    """Whether an SMS had to be taken, whatever happened: nothing that anybody said, even unheard, stands against it."""
    world, plan = case.world, case.plan
    if not plan.steps or len(case.numbers) != 1:
        return False
    (number,) = case.numbers
    if plan.user is not None and not _knew(case, number):
        return False
    if any(phone.number is None for phone in world.phones_of[plan.user]):
        return False
    if world.wishes.get(number) or world.asked_of(number) > world.rules.per_day:
        return False
    said = [receipt for receipt in case.receipts if receipt.told is not Told.REFUSED]
    return any(_must_go(case, step) and not any(case.needs_no(step, r) for r in said) for step in plan.steps[:1])


def _knew(case: Case, number: str) -> bool:
    """Whether a caller was told, before the call, that the person's number counts."""
    phones = case.world.evidence.phones
    return any(
        p.number == number and p.user == case.plan.user and p.told is Told.ACCEPTED and p.told_at <= case.plan.asked_at
        for p in phones
    )


def _must_go(case: Case, step: Step) -> bool:
    if step.when in SUCCESS:
        return False
    if step.when != "notifications_disabled":
        return True
    # Nobody ever said that this person has a device that shows it.
    devices = (call for calls in case.world.devices.values() for call in calls)
    return not case.plan.registrations and not any(d.user == case.plan.user and d.enabled for d in devices)


def _contradictions(case: Case, end: End) -> Iterator[str]:
    if end.unreadable:
        yield f"its story cannot be told: {end.unreadable}"
    if end.state == "texted" and not case.texted:
        yield f"it ended as texted, and the provider has no SMS ({len(case.texts)} tries)"
    if not case.alone:
        return
    for text in case.reached:
        shown = [step for step in end.steps if step.number == case.number_of(text)]
        if shown and shown[0].state not in {"sent", "unknown", "sending"}:
            yield f"the provider has the SMS of step {shown[0].number}, which is shown as {shown[0].state}: {shown[0].reason}"
        elif len(case.plan.steps) == 1 and case.plan.steps[0].when not in SUCCESS and end.state not in _SHOWS_AN_SMS:
            yield f"the provider has its SMS, and it ended as {end.state}: {end.reason}"
    push = [step for step in end.steps if step.channel == "push" and step.state == "sent"]
    if push and not case.pushed and not case.world.broken(case.starts_at, end.finished_at or case.starts_at):
        yield f"its push is shown as sent, and the provider has none ({len(case.pushes)} tries)"
    if end.wasted and case.texted and case.receipts:
        last = min(text.at for text in case.texted)
        if all(case.world.after(receipt.told_at, last) for receipt in case.receipts):
            yield "its SMS is called wasted by a later receipt, and all receipts came before it"


def _between(values: Sequence[tuple[float, float]], start: float, end: float) -> list[float]:
    return [value for at, value in values if start <= at <= end] or [values[-1][1]]
