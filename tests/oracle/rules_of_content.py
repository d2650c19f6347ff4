"""What may be sent, how often, and to whom."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from oracle.case import IN_BOOKS, SUCCESS
from oracle.records import Answer, Told
from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle.case import Case, World
    from oracle.records import SmsAsked

_DAY_S = 86_400
#: How often an SMS that its provider failed later may be sent again.
_MOST_AGAIN = 5
#: How long an answer may be under way.
_ANSWER_S = 5


def twice(case: Case) -> Iterator[Finding]:
    """More messages of a step than were asked for."""
    most = 1 if case.plan.key is not None else len(case.calls)
    for step in case.plan.steps:
        texts = sorted((text for text in case.texted if text.text == step.text), key=lambda text: text.at)
        again = [text for before, text in pairwise(texts) if _went_to_nobody(case, before, text)]
        if len(again) > _MOST_AGAIN:
            story = f"{len(again)} SMS of one step, each for one that had failed"
            yield Finding(Violation.TWICE, case.token, again[-1].at, story)
        texts = [text for text in texts if text not in again]
        # A repeat is right if the answer to the one before it was lost.
        excused = [case.plan.prefers_repeat and _perhaps_untold(case, before) for before in texts[most - 1 : -1]]
        for text, fine in zip(texts[most:], excused, strict=True):
            if fine:
                continue
            story = f"{len(texts)} SMS of one step, {text.at - texts[0].at:.1f} s after the first"
            yield Finding(Violation.TWICE, case.token, text.at, story)
    ids = {push.id: push.at for push in sorted(case.pushed, key=lambda push: -push.at)}
    for id_ in sorted(ids, key=lambda one: ids[one])[most:]:
        yield Finding(Violation.TWICE, case.token, ids[id_], f"pushes under {len(ids)} ids")


def _went_to_nobody(case: Case, before: SmsAsked, text: SmsAsked) -> bool:
    """Whether the provider had said of an SMS, before another one, that it failed for what the operator must mend."""
    failed_at = case.world.failed.get(before.sid)
    return failed_at is not None and failed_at <= text.at


def over_limit(world: World) -> Iterator[Finding]:
    """SMS beyond what a number may get."""
    rules = world.rules
    for number, asked in world.texts_to.items():
        # What went to nobody is sent again in its own place.
        texts = [text for text in asked if text.answer in IN_BOOKS and text.sid not in world.failed]
        last: dict[str, SmsAsked] = {}
        days: dict[int, int] = defaultdict(int)
        for text in texts:
            before = last.get(text.text)
            case = world.cases.get(text.token)
            repeat = case is not None and case.alone and case.plan.prefers_repeat
            if before and not repeat and text.at - before.at < rules.same_s - world.slack(before.at, text.at):
                story = f"the same text to {number} {text.at - before.at:.1f} s after the last"
                yield Finding(Violation.OVER_LIMIT, text.token, text.at, story)
            last[text.text] = text
            day = int(text.at // _DAY_S)
            days[day] += 1
            # What was counted before midnight may arrive behind it.
            if days[day] > rules.per_day and text.at % _DAY_S > world.slack(text.at, text.at):
                story = f"SMS number {days[day]} to {number} on {datetime.fromtimestamp(text.at, UTC):%d %B}"
                yield Finding(Violation.OVER_LIMIT, text.token, text.at, story)


def under_limit(case: Case) -> Iterator[Finding]:
    """Steps that a limit forbade which was not reached."""
    asked = max((_perhaps_counted(case.world, number) for number in case.numbers), default=0)
    for end in case.ends:
        reasons = {end.reason, *(step.reason for step in end.steps)}
        at = end.finished_at or end.created_at
        if "capped_daily" in reasons and asked < case.world.rules.per_day:
            story = f"over the daily limit, though {asked} SMS can have counted at most"
            yield Finding(Violation.UNDER_LIMIT, case.token, at, story)
        same = len({step.text for step in case.plan.steps}) < len(case.plan.steps)
        if "duplicate_30s" in reasons and len(case.calls) == 1 and not same:
            yield Finding(Violation.UNDER_LIMIT, case.token, at, "the same text as before, though nobody else said it")


def _perhaps_counted(world: World, number: str) -> int:
    """Return how many SMS to a number can have counted: those that were tried,
    and those that were stopped, perhaps late.
    """
    tried = {text.token for text in world.texts_to[number]}
    stopped = world.wishes.get(number)
    others = {
        case.token for case in world.cases_of[number] if stopped or case.cancels or case.receipts or not case.ends
    }
    return sum(len(world.cases[t].calls) * len(world.cases[t].plan.steps) for t in tried | others if t in world.cases)


def mismatch(world: World) -> Iterator[Finding]:
    """Messages that are not what a caller said."""
    for push in world.evidence.pushes:
        case = world.cases.get(push.token)
        if push.silent:
            continue
        if case is not None and case.plan.test:
            yield Finding(Violation.MISMATCH, push.token, push.at, "a push of a test")
        elif case is None or case.plan.push is None:
            yield Finding(Violation.MISMATCH, push.token, push.at, "a push that nobody asked for")
        elif push.text != case.plan.push:
            yield Finding(Violation.MISMATCH, push.token, push.at, f"pushed {push.text!r}, not {case.plan.push!r}")
        elif not case.may_have(push.registration, push.at):
            yield Finding(Violation.MISMATCH, push.token, push.at, f"pushed to {push.registration}, somebody else's")
        elif case.plan.user is not None and _too_late(world, case.gone_at(push.registration, push.at), push.at):
            story = f"pushed to {push.registration}, which had not been theirs for long"
            yield Finding(Violation.MISMATCH, push.token, push.at, story)
    for text in world.evidence.texts:
        case = world.cases.get(text.token)
        if case is not None and case.plan.test:
            yield Finding(Violation.MISMATCH, text.token, text.at, "an SMS of a test")
        elif case is None or not case.plan.steps:
            yield Finding(Violation.MISMATCH, text.token, text.at, "an SMS that nobody asked for")
        elif case.step(text) is None:
            yield Finding(Violation.MISMATCH, text.token, text.at, f"texted {text.text!r}, which no step says")
        elif text.number not in case.numbers:
            yield Finding(Violation.MISMATCH, text.token, text.at, f"texted {text.number}, somebody else")
        elif case.plan.user is not None and _too_late(world, case.moved_at(text.number, text.at), text.at):
            story = f"texted {text.number}, which had not been theirs for long"
            yield Finding(Violation.MISMATCH, text.token, text.at, story)
        elif (step := case.step(text)) and step.when in SUCCESS and not _succeeded(case, SUCCESS[step.when], text.at):
            yield Finding(Violation.MISMATCH, text.token, text.at, f"texted for {step.when!r}, which nobody had said")


def _too_late(world: World, said_at: float | None, at: float) -> bool:
    return said_at is not None and world.after(said_at, at)


def _succeeded(case: Case, kinds: frozenset[str], at: float) -> bool:
    """Whether what a step follows may have been known by then."""
    said = (receipt for receipt in case.receipts if receipt.told is not Told.REFUSED)
    return any(receipt.kind in kinds and receipt.asked_at <= at for receipt in said)


def _perhaps_untold(case: Case, text: SmsAsked) -> bool:
    """Whether the answer to a request may not have arrived."""
    faults = case.world.evidence.faults
    lost = any(f.loses_answers and f.at <= text.at + _ANSWER_S and f.until >= text.at - 1 for f in faults)
    return lost or text.answer is Answer.TAKEN_UNTOLD
