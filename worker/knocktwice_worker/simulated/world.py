"""The world around the installation: providers, phones and people, which answer without any network.

Nothing here decides: a request that comes is answered, and what a person does about it is written down until its time.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from knocktwice_shared.messages import Platform, Receipt, ReceiptEvent
from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.simulated.people import draws

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.messages import PushMessage
    from knocktwice_worker.simulated.clock import Clock
    from knocktwice_worker.simulated.file import Day
    from knocktwice_worker.simulated.people import Person

#: How long a push, an SMS and a WhatsApp message take.
_PUSH_TAKES, _SMS_TAKES, _WHATSAPP_TAKES = timedelta(seconds=1), timedelta(seconds=6), timedelta(seconds=2)
#: Stands before a number to which WhatsApp is to bring a message; and what Twilio says of a number without WhatsApp.
_WHATSAPP, _NOT_THERE = "whatsapp:", 63024
#: From the look at the push to the tap.
_TAP = timedelta(seconds=3)
#: Stands in a request's address for what is no real provider.
_PUSH = "push:"


@dataclass(slots=True)
class Told:
    """A notification, as the world sees it.

    Attributes:
        person: whose.
        traffic: the place of its kind in the file.
        at: when the application sent it.
        luck: what happens about it; the same under all rules.
        seen_push: when the person saw the push; ``None``: not.
        clicked: when they clicked it.
        texted: when the SMS went.
        seen_text: when they saw it.
        away_until: until when their phone has no network.
        whatsapped: when a WhatsApp message went.
        seen_whatsapp: when they saw it.
        answered: when they do in the application what it asks for.
    """

    person: Person
    traffic: int
    at: datetime
    luck: tuple[float, ...]
    seen_push: datetime | None = None
    clicked: datetime | None = None
    texted: datetime | None = None
    seen_text: datetime | None = None
    away_until: datetime | None = None
    whatsapped: datetime | None = None
    seen_whatsapp: datetime | None = None
    answered: datetime | None = None

    @property
    def reached(self) -> datetime | None:
        """When the person saw any of it."""
        seen = (self.seen_push, self.seen_text, self.seen_whatsapp)
        return min((at for at in seen if at is not None), default=None)

    @property
    def had_seen(self) -> bool:
        """Whether they were texted although they had seen the push, or the WhatsApp message."""
        seen = [at for at in (self.seen_push, self.seen_whatsapp) if at is not None]
        return self.texted is not None and bool(seen) and min(seen) <= self.texted


@dataclass(slots=True)
class Said:
    """What reached the installation until now.

    Attributes:
        receipts: of apps.
        cancelled: the notifications that the application needs no more, because they were answered in it.
        reports: of the providers.
    """

    receipts: list[ReceiptEvent] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    reports: list[StatusReport] = field(default_factory=list)


@dataclass
class World:
    """The world outside of the installation.

    Attributes:
        day: the file.
        clock: the simulation's.
        people: number → person.
        told: notification id → what the world knows of it.
    """

    day: Day
    clock: Clock
    people: Mapping[str, Person]
    told: dict[str, Told] = field(default_factory=dict)
    _later: list[tuple[datetime, int, ReceiptEvent | StatusReport | str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def fails(self, what: str, at: datetime | None = None) -> bool:
        """Return whether something fails now, or at a time."""
        at = at or self.clock.now
        return any(
            one.what == what and self.day.moment(one.begins) <= at < self.day.moment(one.begins) + one.lasts
            for one in self.day.outages
        )

    def said(self) -> Said:
        """Return what was said until now."""
        said = Said()
        while self._later and self._later[0][0] <= self.clock.now:
            match heapq.heappop(self._later)[2]:
                case ReceiptEvent() as receipt:
                    said.receipts.append(receipt)
                case StatusReport() as report:
                    said.reports.append(report)
                case id_:
                    said.cancelled.append(id_)
        return said

    @property
    def next(self) -> datetime | None:
        """When something is said next."""
        return self._later[0][0] if self._later else None

    def _say(self, at: datetime, what: ReceiptEvent | StatusReport | str) -> None:
        heapq.heappush(self._later, (at, next(self._numbers), what))

    def take_push(self, id_: str, ttl: timedelta) -> str:
        """Take a push to a phone, and return what the provider says."""
        one = self.told[id_]
        person, group = one.person, one.person.group
        if self.fails("push") or (person.platform is Platform.IOS and self.fails("ios")):
            return "busy" if self.fails("push") else "third_party_auth"
        if person.removed:
            return "unregistered"
        at = self.clock.now + _PUSH_TAKES
        offline, until, reports, looks, clicks, *_ = one.luck
        if offline < group.offline:
            one.away_until = at + group.offline_for * -math.log(max(1 - until, 1e-9))
            if one.away_until - at > ttl:
                return "sent"
            at = one.away_until
        if not person.shows:
            return "sent"
        if reports < group.reports.get(person.platform, 0):
            self._report(at, id_, Receipt.DELIVERED)
        one.seen_push = person.looks(at, looks)
        if clicks < group.clicks:
            one.clicked = one.seen_push + _TAP
            self._report(one.clicked, id_, Receipt.CLICKED)
        self._seen(id_, one.seen_push)
        return "sent"

    def _report(self, at: datetime, id_: str, kind: Receipt) -> None:
        if not self.fails("receipts", at):
            self._say(at, ReceiptEvent(UUID(id_), kind, at, self.told[id_].person.registration))

    def _seen(self, id_: str, at: datetime) -> None:
        """Let a person do what the application asks for, once they have seen it."""
        one = self.told[id_]
        if one.answered is None and one.luck[6] < self.day.traffic[one.traffic].answers:
            one.answered = at + _TAP
            self._say(one.answered, id_)

    def take_text(self, id_: str, step: int, to: str) -> Response | NoResponse:
        """Take an SMS or a WhatsApp message, as Twilio would."""
        by_whatsapp = to.startswith(_WHATSAPP)
        if self.fails("whatsapp" if by_whatsapp else "sms"):
            return NoResponse("no connection", sent=False)
        person, one = self.people[to.removeprefix(_WHATSAPP)], self.told[id_]
        sid = f"SM{next(self._numbers):032}"
        if by_whatsapp:
            self._whatsapp(id_, step, sid, person)
        elif person.landline:
            return Response(400, b'{"code": 21614, "message": "not a mobile number"}')
        else:
            one.texted = self.clock.now
            arrives = self.clock.now + _SMS_TAKES
            # Without pumping nobody asks whether an SMS arrived, and half the reports are saved.
            if self.day.attacks:
                self._provider_says(arrives, id_, step, sid, ProviderState.DELIVERED)
            if not person.pumped:
                one.seen_text = person.looks(arrives, one.luck[5])
                self._seen(id_, one.seen_text)
        return Response(201, json.dumps({"sid": sid, "status": "queued"}).encode())

    def _whatsapp(self, id_: str, step: int, sid: str, person: Person) -> None:
        one = self.told[id_]
        one.whatsapped = self.clock.now
        arrives = self.clock.now + _WHATSAPP_TAKES
        if not person.whatsapp:
            self._provider_says(arrives, id_, step, sid, ProviderState.UNDELIVERED)
            return
        arrives = max(arrives, one.away_until or arrives)
        self._provider_says(arrives, id_, step, sid, ProviderState.DELIVERED)
        one.seen_whatsapp = person.looks(arrives, one.luck[7])
        self._seen(id_, one.seen_whatsapp)
        if draws("reads", *one.luck)[0] < person.group.tells_reading:
            self._provider_says(one.seen_whatsapp, id_, step, sid, ProviderState.READ)

    def _provider_says(self, at: datetime, id_: str, step: int, sid: str, status: ProviderState) -> None:
        error = _NOT_THERE if status is ProviderState.UNDELIVERED else None
        self._say(at, StatusReport("twilio", sid, status, at, error=error, intent=(id_, step)))


class PretendedPush:
    """A push provider in this process."""

    name = "push"

    def authorize(self) -> None:
        """Nobody asks for credentials here."""

    def request(self, message: PushMessage) -> Request:
        """Write one push down."""
        body = f"{message.notification_id} {message.ttl.total_seconds()}"
        return Request(_PUSH, {}, body.encode())

    def outcome(self, answer: Response | NoResponse) -> Outcome:
        """Read what :meth:`World.take_push` said."""
        said = "" if isinstance(answer, NoResponse) else answer.body.decode()
        match said:
            case "sent":
                return Sent("pretended")
            case "unregistered":
                return Rejected("unregistered", address_dead=True)
            case "third_party_auth":
                return Rejected("third_party_auth", operators=True)
            case _:
                return Retry("the push provider fails", timedelta(seconds=30))


class Wire:
    """Carries the requests of the installation to the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, requests: Sequence[Request], _: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Return the answers, in the same order."""
        return list(map(self._answer, requests))

    def _answer(self, request: Request) -> Response | NoResponse:
        if request.url == _PUSH:
            id_, ttl = request.body.decode().split(" ")
            return Response(200, self._world.take_push(id_, timedelta(seconds=float(ttl))).encode())
        if request.method == "GET":
            return Response(200, b'{"messages": [], "next_page_uri": null}')
        form = parse_qs(request.body.decode())
        intent = parse_qs(urlsplit(form["StatusCallback"][0]).query)["intent"][0]
        id_, step, *_ = intent.split(".")
        return self._world.take_text(id_, int(step), form["To"][0])

    def close(self) -> None:
        """Nothing is open."""


def luck_of(seed: int, n: int) -> tuple[float, ...]:
    """Return what happens about the n-th notification of a day, under any rules."""
    return draws(seed, "notification", n)
