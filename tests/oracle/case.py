"""One notification with everything that is known of it, and what follows from what callers said."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from oracle.records import Answer, Told

if TYPE_CHECKING:
    from oracle.records import (
        Cancel,
        Device,
        End,
        Evidence,
        Notify,
        Phone,
        PushAsked,
        Receipt,
        Rules,
        SmsAsked,
        Step,
        Wish,
    )

#: In the provider's books.
IN_BOOKS = frozenset({Answer.TAKEN, Answer.TAKEN_UNTOLD})
#: So long after a request a list knows whether it was taken (seconds).
LIST_S = 3
#: A step that waits for an answer.
WAITING = frozenset({"not_delivered", "not_clicked", "not_answered"})
#: What a step that follows a success asks for.
SUCCESS = {"delivered": frozenset({"delivered", "clicked", "seen"}), "clicked": frozenset({"clicked"})}


@dataclass
class Case:
    """A notification: all that has its token.

    Attributes:
        calls: those that were not refused, oldest first. Several have one key, or are meant to be the same text again.
        pushes: those that show something.
    """

    token: str
    world: World
    calls: list[Notify] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    pushes: list[PushAsked] = field(default_factory=list)
    texts: list[SmsAsked] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    @property
    def plan(self) -> Notify:
        """What was asked for."""
        return self.calls[0]

    @property
    def accepted(self) -> bool:
        """Whether a caller was told that it counts."""
        return any(call.told is Told.ACCEPTED for call in self.calls)

    @property
    def alone(self) -> bool:
        """Whether it is one notification, however often the call was repeated."""
        return len(self.calls) == 1 or self.plan.key is not None

    @cached_property
    def pushed(self) -> list[PushAsked]:
        """Pushes in the provider's books."""
        return [push for push in self.pushes if push.answer in IN_BOOKS]

    @cached_property
    def texted(self) -> list[SmsAsked]:
        """SMS in the provider's books."""
        return [text for text in self.texts if text.answer in IN_BOOKS]

    @cached_property
    def reached(self) -> list[SmsAsked]:
        """SMS in the provider's books of which it has not said that they went to nobody."""
        return [text for text in self.texted if text.sid not in self.world.failed]

    def number_of(self, text: SmsAsked) -> int | None:
        """Return which step of the plan says this text; the push is 0."""
        first = 1 if self.plan.push is not None else 0
        return next((n for n, step in enumerate(self.plan.steps, first) if step.text == text.text), None)

    def step(self, text: SmsAsked) -> Step | None:
        """Return the step that says this text."""
        return next((step for step in self.plan.steps if step.text == text.text), None)

    @property
    def starts_at(self) -> float:
        """When it may begin."""
        return max(self.plan.asked_at, self.plan.send_at or 0)

    @property
    def numbers(self) -> set[str]:
        """Numbers that may be the person's while it is under way."""
        if self.plan.user is None:
            return {self.plan.phone} - {None}  # type: ignore[return-value]
        return self.world.numbers_of[self.plan.user]

    @cached_property
    def sure_devices(self) -> set[str]:
        """Devices that were certainly the person's, and show what is pushed, from the call until the run's end."""
        if self.plan.user is None:
            return set(self.plan.registrations)
        return {
            registration
            for registration in self.world.devices_of[self.plan.user]
            if (calls := self.world.devices[registration])
            and (last := [c for c in calls if c.told is Told.ACCEPTED and c.told_at <= self.plan.asked_at][-1:])
            and last[0].user == self.plan.user
            and last[0].enabled
            and not any(c.told_at > last[0].told_at and c.told is not Told.REFUSED for c in calls)
        }

    def may_have(self, registration: str, until: float) -> bool:
        """Whether a device may have been the person's between the call and ``until``."""
        if self.plan.user is None:
            return registration in self.plan.registrations
        calls = self.world.devices.get(registration, [])
        known = [c for c in calls if c.told is Told.ACCEPTED and c.told_at <= self.plan.asked_at]
        since = known[-1].asked_at if known else 0
        perhaps = [c for c in calls if since <= c.asked_at <= until and c.told is not Told.REFUSED]
        return any(c.user == self.plan.user for c in perhaps)

    def moved_at(self, number: str, until: float) -> float | None:
        """Return when a caller was told that the person has this number no more; ``None``: perhaps they have it."""
        calls = [c for c in self.world.phones_of[self.plan.user] if c.told is not Told.REFUSED and c.asked_at <= until]
        last = max((place for place, call in enumerate(calls) if call.number == number), default=-1)
        return next((call.told_at for call in calls[last + 1 :] if call.told is Told.ACCEPTED), None)

    def gone_at(self, registration: str, until: float) -> float | None:
        """Return when a caller was told that the person has this device no more; ``None``: perhaps they have it."""
        calls = [c for c in self.world.devices[registration] if c.told is not Told.REFUSED and c.asked_at <= until]
        last = max((place for place, call in enumerate(calls) if call.user == self.plan.user), default=-1)
        return next((call.told_at for call in calls[last + 1 :] if call.told is Told.ACCEPTED), None)

    def needs_no(self, step: Step, receipt: Receipt) -> bool:
        """Whether a receipt makes a step needless."""
        if receipt.kind in ("clicked", "seen"):
            return step.when in WAITING
        if receipt.kind == "replied":
            return step.when == "not_answered"
        return step.when == "not_delivered" and step is self.plan.steps[0]


class World:
    """All evidence, by what it is about."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.cases: dict[str, Case] = {}
        for call in evidence.notifies:
            if call.told is not Told.REFUSED:
                self.cases.setdefault(call.token, Case(call.token, self)).calls.append(call)
        for name, records in (
            ("receipts", evidence.receipts),
            ("cancels", evidence.cancels),
            ("pushes", [push for push in evidence.pushes if not push.silent]),
            ("texts", evidence.texts),
            ("ends", evidence.ends),
        ):
            for record in records:
                if case := self.cases.get(record.token):
                    getattr(case, name).append(record)
        self.devices: dict[str, list[Device]] = defaultdict(list)
        for device in sorted(evidence.devices, key=lambda call: call.asked_at):
            self.devices[device.registration].append(device)
        self.devices_of: dict[str | None, set[str]] = defaultdict(set)
        for device in evidence.devices:
            self.devices_of[device.user].add(device.registration)
        self.numbers_of: dict[str | None, set[str]] = defaultdict(set)
        self.phones_of: dict[str | None, list[Phone]] = defaultdict(list)
        for phone in sorted(evidence.phones, key=lambda call: call.asked_at):
            self.phones_of[phone.user].append(phone)
            if phone.number is not None:
                self.numbers_of[phone.user].add(phone.number)
        self.cases_of: dict[str, list[Case]] = defaultdict(list)
        for case in self.cases.values():
            for number in case.numbers:
                self.cases_of[number].append(case)
        self.wishes: dict[str, list[Wish]] = defaultdict(list)
        for wish in sorted(evidence.wishes, key=lambda call: call.asked_at):
            self.wishes[wish.number].append(wish)
        #: When the provider first said of an SMS that it went to nobody, by its id.
        self.failed: dict[str | None, float] = {}
        for failure in sorted(evidence.failures, key=lambda call: call.asked_at):
            if failure.told is not Told.REFUSED:
                self.failed.setdefault(failure.sid, failure.asked_at)
        self.texts_to: dict[str, list[SmsAsked]] = defaultdict(list)
        for text in sorted(evidence.texts, key=lambda text: text.at):
            self.texts_to[text.number].append(text)

    @property
    def rules(self) -> Rules:
        """What holds."""
        return self.evidence.rules

    def slack(self, start: float, end: float) -> float:
        """Return what is forgiven between two moments: the slack, and what the provider was late in noting."""
        stalls = sum(stall.seconds for stall in self.evidence.stalls if start <= stall.at <= end + stall.seconds)
        return self.rules.slack_s + stalls

    def after(self, said_at: float, arrived_at: float) -> bool:
        """Whether something arrived so long after something was said that it should not have left."""
        return arrived_at > said_at + self.slack(said_at, arrived_at)

    def excused_until(self, due: float, arrived_at: float) -> float:
        """Return until when something that was due may arrive, seen what was broken meanwhile."""
        faults = [fault.until for fault in self.evidence.faults if fault.at < arrived_at and fault.until >= due]
        faults += [pause.until for pause in self.evidence.pauses if pause.asked_at < arrived_at and pause.until >= due]
        limits = [due + self.rules.late_s, *(until + self.rules.recovery_s for until in faults)]
        return max(limits) + self.slack(due, arrived_at)

    def broken(self, start: float, end: float) -> bool:
        """Whether anything was done to the system between two moments."""
        return any(fault.at <= end and fault.until >= start for fault in self.evidence.faults)

    def lists_read(self, numbers: set[str], since: float) -> int:
        """Return how often the provider's list of a number was read, whole, and long enough after ``since``."""
        lists = (one for one in self.evidence.lists if one.told and one.number in numbers)
        return sum(one.at > since + LIST_S for one in lists)

    def asked_of(self, number: str) -> int:
        """Return how many SMS to a number callers have asked for at most."""
        return sum(len(case.plan.steps) * len(case.calls) for case in self.cases_of[number])
