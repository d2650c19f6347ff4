"""The application's messages of a day, with their times: drawn from the seed, the same under every set of rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.simulated.file import People, Step
from knocktwice_worker.simulated.people import draws, pumped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.simulated.file import Day, RuleSet, Traffic
    from knocktwice_worker.simulated.people import Person

#: The content template of WhatsApp messages.
_TEMPLATE = "HX" + "0" * 32


@dataclass(frozen=True, slots=True)
class Call:
    """One notification that the application asks for.

    Attributes:
        at: when.
        n: which one of the day.
        traffic: the place of its kind in the file.
        person: for whom.
    """

    at: datetime
    n: int
    traffic: int
    person: Person

    @property
    def id(self) -> UUID:
        """Its id, which sorts by its time."""
        return _id(self.at, self.n)


def calls(day: Day, seed: int, people: Sequence[Person]) -> list[Call]:
    """Return the calls of a day, the first one first."""
    found: list[Call] = []
    for place, kind in enumerate(day.traffic):
        if kind.at is not None:
            at, wanted = day.moment(kind.at), (draws(seed, "to", place, n)[0] < kind.to for n in range(len(people)))
            found.extend(Call(at, 0, place, person) for person, is_in in zip(people, wanted, strict=True) if is_in)
            continue
        begin, span = _span(day, kind)
        for n in range(kind.count or 0):
            when, who, *_ = draws(seed, "call", place, n)
            person = people[int(len(people) * who**kind.skew)]
            found.append(Call(begin + span * when, 0, place, person))
    found += _attacks(day, seed)
    found.sort(key=lambda call: (call.at, call.traffic, call.person.id))
    return [Call(call.at, n, call.traffic, call.person) for n, call in enumerate(found)]


def _attacks(day: Day, seed: int) -> Iterator[Call]:
    names = [kind.name for kind in day.traffic]
    before: dict[str, int] = defaultdict(int)
    for place, attack in enumerate(day.attacks):
        group = People(name="pumped", count=attack.count, country=attack.country)
        begin = day.moment(attack.begins)
        for n, person in enumerate(pumped(attack.country, group, before[attack.country], attack.count)):
            at = begin + attack.lasts * draws(seed, "attack", place, n)[0]
            yield Call(at, 0, names.index(attack.traffic), person)
        before[attack.country] += attack.count


def batches(day: Day, rules: RuleSet, wanted: Sequence[Call]) -> Iterator[Batch]:
    """Yield the messages of the application for some calls."""
    for place, kind in enumerate(day.traffic):
        own = [call for call in wanted if call.traffic == place]
        for first in range(0, len(own), BATCH_LIMIT):
            page = own[first : first + BATCH_LIMIT]
            yield parse_batch(_wire(kind, rules, page))


def _wire(kind: Traffic, rules: RuleSet, page: Sequence[Call]) -> dict[str, Any]:
    content: dict[str, Any] = {"push": {"title": "News", "body": "Something has happened."}, "sms": {"text": kind.name}}
    recipients: list[dict[str, Any]] = [{"id": str(call.id), **_whom(call.person)} for call in page]
    variables = {}
    if not kind.same_text:
        content["sms"] = {"text": kind.name + " {{ n }}"}
        variables = {"variables": {"1": "{{ n }}"}}
        for call, recipient in zip(page, recipients, strict=True):
            recipient["params"] = {"n": call.n}
    concerned = not rules.only or kind.name in rules.only
    steps = steps_of(kind, rules) if concerned else kind.steps
    if not any(step.channel == "sms" for step in steps):
        content.pop("sms")
    plan = [
        {"channel": step.channel, "when": step.when, "after_s": step.after.total_seconds()}
        | ({} if step.channel == "sms" else {"content_sid": _TEMPLATE, **variables})
        for step in steps
    ]
    return {
        "v": 1,
        "id": str(_id(page[0].at, page[0].n, of_batch=True)),
        "content": content,
        "plan": plan,
        "category": kind.category,
        "recipients": recipients,
    }


def steps_of(kind: Traffic, rules: RuleSet) -> Sequence[Step]:
    """Return the steps behind the pushes of a kind under rules that concern it."""
    if rules.plan is not None:
        return rules.plan
    steps = list(kind.steps)
    if not steps and rules.when:
        steps = [Step().model_copy(update={"after": kind.after})]
    if steps:
        said = {"when": rules.when, "after": rules.after}
        steps[0] = steps[0].model_copy(update={name: value for name, value in said.items() if value is not None})
    return steps


def _whom(person: Person) -> dict[str, Any]:
    return {"phone": person.number} if person.pumped else {"user": person.id}


def _span(day: Day, kind: Traffic) -> tuple[datetime, timedelta]:
    hours = QuietHours.parse(kind.hours)
    if not hours:
        return day.begins, timedelta(days=1)
    begin, end = day.moment(hours.start), day.moment(hours.end)
    return begin, end - begin if end > begin else day.begins + timedelta(days=1) - begin


def _id(at: datetime, n: int, *, of_batch: bool = False) -> UUID:
    """Return a UUIDv7 that the time and a number decide."""
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | of_batch << 64 | 0b10 << 62 | n)
