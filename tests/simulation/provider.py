"""The provider: FCM and Twilio in this process, with books that only grow, behind the product's interface for HTTP.

A request has two steps: it leaves, if its deadline is not over, and is entered in the books; and its answer is read.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from knocktwice_worker.channels.http import NoResponse, Request, Response
from oracle.records import Answer, Evidence, Fault, Listed, PushAsked, SmsAsked
from oracle.trouble import Door, Mood
from simulation.queues import NOTICED_S
from simulation.turns import current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from knocktwice_worker.channels.deadline import Deadline
    from simulation.clock import Clock

#: A registration that begins so is no longer known.
GONE = "gone-"
#: How far a list may lag behind (seconds), and how long "later" is where the provider says so.
_BEHIND_S, _LATER_S = 8, 2
_TOKEN = re.compile(r"\[(\w+)")
_TAKES = frozenset({Mood.BROKEN_TAKEN, Mood.LOST, Mood.HOLE_TAKEN})
_STATUS = {Mood.BUSY: 429, Mood.BROKEN: 503, Mood.BROKEN_TAKEN: 500}


@dataclass(frozen=True, slots=True)
class _Message:
    sid: str
    to: str
    body: str
    sender: str
    at: float
    moment: datetime

    def shown(self) -> dict[str, Any]:
        return {
            "sid": self.sid,
            "to": self.to,
            "body": self.body,
            "status": "sent",
            "from": self.sender,
            "messaging_service_sid": None,
            "date_created": format_datetime(self.moment),
        }


@dataclass
class Books:
    """The provider's books of one run.

    Attributes:
        evidence: where it writes.
        moods: which request at which door, counted from 0, is treated how.
        tell: notes what happened, for the story.
    """

    clock: Clock
    evidence: Evidence
    moods: Mapping[tuple[Door, int], Mood]
    tell: Callable[[str], None]
    _asked: dict[Door, int] = field(default_factory=lambda: defaultdict(int))
    _messages: list[_Message] = field(default_factory=list)

    def receive(self, request: Request) -> Response | NoResponse:
        """Enter a request in the books, and answer."""
        url = urlsplit(request.url)
        if url.path.endswith("messages:send"):
            return self._push(json.loads(request.body)["message"])
        if request.method == "GET":
            return self._list(parse_qs(url.query)["To"][0])
        form = parse_qs(request.body.decode())
        media = form.pop("MediaUrl", [])
        return self._sms({name: values[0] for name, values in form.items()}, media)

    def _meets(self, door: Door) -> Mood | None:
        n = self._asked[door]
        self._asked[door] = n + 1
        mood = self.moods.get((door, n))
        if mood is not None:
            now = self.clock.now
            self.evidence.faults.append(Fault(now, now + NOTICED_S, f"{door} {n}: {mood}"))
            self.tell(f"the provider: request {n + 1} at the door {door!s} meets {mood!s}")
        return mood

    def _push(self, message: dict[str, Any]) -> Response | NoResponse:
        registration = message.get("token") or message["fid"]
        shown, data = message.get("notification"), message["data"]
        mood = self._meets(Door.PUSH) if shown else None
        gone = registration.startswith(GONE)
        answer = Answer.REFUSED if gone else _booked(mood)
        title, body = (shown["title"], shown["body"]) if shown else ("", "")
        id_ = data.get("knocktwice_id") or data.get("knocktwice_withdraw", "")
        self.evidence.pushes.append(
            PushAsked(self.clock.now, answer, registration, id_, _token(body), f"{title}|{body}", shown is None)
        )
        if shown:
            self.tell(f"the provider: push {_token(body)} to {registration}: {answer}")
        if gone:
            return _fcm_error(404, "NOT_FOUND", "UNREGISTERED")
        name = f"projects/p/messages/{len(self.evidence.pushes)}-{self.clock.began:.0f}"
        return _answer(mood, Response(200, json.dumps({"name": name}).encode()))

    def _sms(self, form: dict[str, str], media: Sequence[str]) -> Response | NoResponse:
        mood = self._meets(Door.SMS)
        answer = _booked(mood)
        sid = (
            f"SM{len(self._messages):03}{self.clock.began:.0f}"
            if answer in (Answer.TAKEN, Answer.TAKEN_UNTOLD)
            else None
        )
        token = _token(form["Body"])
        text = in_books(form["Body"], media)
        self.evidence.texts.append(SmsAsked(self.clock.now, answer, form["To"], text, token, sid))
        self.tell(f"the provider: SMS {token}: {answer}")
        if sid is None:
            return _answer(mood, Response(201, b""))
        message = _Message(sid, form["To"], form["Body"], form["From"], self.clock.now, self.clock.moment)
        self._messages.append(message)
        return _answer(mood, Response(201, json.dumps(message.shown()).encode()))

    def _list(self, number: str) -> Response | NoResponse:
        mood = self._meets(Door.LIST)
        until = self.clock.now - (_BEHIND_S if mood is Mood.BEHIND else 0)
        known = [message.shown() for message in self._messages[::-1] if message.to == number and message.at <= until]
        usual = mood is None or mood is Mood.BEHIND
        self.evidence.lists.append(Listed(self.clock.now, number, usual))
        page = Response(200, json.dumps({"messages": known, "next_page_uri": None}).encode())
        return page if usual else _answer(mood, page)


class Wire:
    """What carries a worker's requests to the provider; a request past its deadline does not leave.

    Args:
        clock: the simulation's.
        timeout_s: how long an answer is waited for.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self.books: Books | None = None

    def send(self, requests: Sequence[Request], not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        """Send requests side by side; return the answers in the same order."""
        job, books = current(), self.books
        if not requests:
            return []
        if job is None or books is None:
            raise AssertionError("only jobs of a run speak to the provider")
        job.point(f"call of the provider: {requests[0].method}")
        if not_after is not None and not_after.over:
            return [NoResponse("it was too late to send it", sent=False, late=True)] * len(requests)
        left_at = self._clock.now
        answers = [books.receive(request) for request in requests]
        job.point("answer of the provider")
        if self._clock.now > left_at + self._timeout_s:
            return [NoResponse("the provider did not answer in time", sent=True)] * len(requests)
        return answers

    def close(self) -> None:
        """Nothing is open."""


def in_books(text: str, media: Sequence[str]) -> str:
    """Return what the books say of an SMS: its text, and the addresses of its media."""
    return " ".join([text, *media])


def _booked(mood: Mood | None) -> Answer:
    if mood is None or mood is Mood.BEHIND:
        return Answer.TAKEN
    if mood in _TAKES:
        return Answer.TAKEN_UNTOLD
    return Answer.LATER if mood in _STATUS else Answer.UNANSWERED


def _answer(mood: Mood | None, usual: Response) -> Response | NoResponse:
    if mood is None:
        return usual
    if mood not in _STATUS:
        return NoResponse("the connection broke before the answer", sent=True)
    status = _STATUS[mood]
    google = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 500: "INTERNAL"}[status]
    body = {"error": {"code": status, "status": google}, "code": 20000 + status}
    headers = {"retry-after": str(_LATER_S)} if mood is Mood.BUSY else {}
    return Response(status, json.dumps(body).encode(), headers)


def _fcm_error(status: int, google: str, code: str) -> Response:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    return Response(status, json.dumps({"error": {"code": status, "status": google, "details": details}}).encode())


def _token(text: str) -> str:
    found = _TOKEN.search(text)
    return found[1] if found else ""
