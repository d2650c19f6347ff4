"""The messages that the application sends in a day, with their times: drawn from the seed, and the same under every set of rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.simulated.people import draws

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.simulated.file import Day, RuleSet, Traffic
    from knocktwice_worker.simulated.people import Person


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
    found.sort(key=lambda call: (call.at, call.traffic, call.person.id))
    return [Call(call.at, n, call.traffic, call.person) for n, call in enumerate(found)]


def batches(day: Day, rules: RuleSet, wanted: Sequence[Call]) -> Iterator[Batch]:
    """Yield the messages of the application for some calls."""
    for place, kind in enumerate(day.traffic):
        own = [call for call in wanted if call.traffic == place]
        for first in range(0, len(own), BATCH_LIMIT):
            page = own[first : first + BATCH_LIMIT]
            yield parse_batch(_wire(kind, rules, page))


def _wire(kind: Traffic, rules: RuleSet, page: Sequence[Call]) -> dict[str, Any]:
    content: dict[str, Any] = {"push": {"title": "News", "body": "Something has happened."}, "sms": {"text": kind.name}}
    recipients: list[dict[str, Any]] = [{"id": str(call.id), "user": call.person.id} for call in page]
    if not kind.same_text:
        content["sms"] = {"text": kind.name + " {{ n }}"}
        for call, recipient in zip(page, recipients, strict=True):
            recipient["params"] = {"n": call.n}
    concerned = not rules.only or kind.name in rules.only
    when = rules.when if concerned and rules.when else kind.when
    after = rules.after if concerned and rules.after is not None else kind.after
    if when == "none":
        content.pop("sms")
    plan = [] if when == "none" else [{"channel": "sms", "when": when, "after_s": after.total_seconds()}]
    return {
        "v": 1,
        "id": str(_id(page[0].at, page[0].n, of_batch=True)),
        "content": content,
        "plan": plan,
        "category": kind.category,
        "recipients": recipients,
    }


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
