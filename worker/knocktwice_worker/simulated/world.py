"""The world around the installation: providers, phones and people, which answer without any network.

Nothing here decides: a request that comes is answered, and what a person does about it is written down until its time.
"""

from __future__ import annotations

import heapq
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
from knocktwice_worker.simulated.people import draws

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.messages import PushMessage
    from knocktwice_worker.simulated.clock import Clock
    from knocktwice_worker.simulated.file import Day
    from knocktwice_worker.simulated.people import Person

#: How long a push and an SMS take.
_PUSH_TAKES, _SMS_TAKES = timedelta(seconds=1), timedelta(seconds=6)
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
    """

    person: Person
    traffic: int
    at: datetime
    luck: tuple[float, ...]
    seen_push: datetime | None = None
    clicked: datetime | None = None
    texted: datetime | None = None
    seen_text: datetime | None = None

    @property
    def reached(self) -> datetime | None:
        """When the person saw any of it."""
        return min((at for at in (self.seen_push, self.seen_text) if at is not None), default=None)


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
    _receipts: list[tuple[datetime, str, Receipt]] = field(default_factory=list)
    _texts: int = 0

    def fails(self, what: str, at: datetime | None = None) -> bool:
        """Return whether something fails now, or at a time."""
        at = at or self.clock.now
        return any(
            one.what == what and self.day.moment(one.begins) <= at < self.day.moment(one.begins) + one.lasts
            for one in self.day.outages
        )

    def receipts(self) -> list[ReceiptEvent]:
        """Return what apps have reported until now."""
        due = []
        while self._receipts and self._receipts[0][0] <= self.clock.now:
            at, id_, kind = heapq.heappop(self._receipts)
            due.append(ReceiptEvent(UUID(id_), kind, at, self.told[id_].person.registration))
        return due

    @property
    def next_receipt(self) -> datetime | None:
        """When the next one comes."""
        return self._receipts[0][0] if self._receipts else None

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
            online = at + group.offline_for * -math.log(max(1 - until, 1e-9))
            if online - at > ttl:
                return "sent"
            at = online
        if not person.shows:
            return "sent"
        if reports < group.reports.get(person.platform, 0):
            self._report(at, id_, Receipt.DELIVERED)
        one.seen_push = person.looks(at, looks)
        if clicks < group.clicks:
            one.clicked = one.seen_push + _TAP
            self._report(one.clicked, id_, Receipt.CLICKED)
        return "sent"

    def _report(self, at: datetime, id_: str, kind: Receipt) -> None:
        if not self.fails("receipts", at):
            heapq.heappush(self._receipts, (at, id_, kind))

    def take_text(self, id_: str, number: str) -> Response | NoResponse:
        """Take an SMS, as Twilio would."""
        if self.fails("sms"):
            return NoResponse("no connection", sent=False)
        person = self.people[number]
        if person.landline:
            return Response(400, b'{"code": 21614, "message": "not a mobile number"}')
        one = self.told[id_]
        one.texted = self.clock.now
        one.seen_text = person.looks(self.clock.now + _SMS_TAKES, one.luck[5])
        self._texts += 1
        return Response(201, json.dumps({"sid": f"SM{self._texts:032}", "status": "queued"}).encode())


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
        return self._world.take_text(intent.partition(".")[0], form["To"][0])

    def close(self) -> None:
        """Nothing is open."""


def luck_of(seed: int, n: int) -> tuple[float, ...]:
    """Return what happens about the n-th notification of a day, under any rules."""
    return draws(seed, "notification", n)
