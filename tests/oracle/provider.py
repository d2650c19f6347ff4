"""FCM and Twilio in a process of their own, with books that are written before anything is answered.

Nothing of it is shared with the system that it judges, but the HTTP on the wire. Run by :mod:`oracle.installation`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from oracle.phones import Phones
from oracle.records import Answer, Book, Listed, PushAsked, SmsAsked, Stall
from oracle.trouble import TAKES, Door, Mood, Trouble, Troubles

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The account at the stand-in for Twilio. It opens nothing else.
ACCOUNT, AUTH_TOKEN = "AC" + "0" * 31 + "1", "oracle"
SENDER = "+16502530000"
#: Devices with such registrations are unknown to FCM; such have just had too many pushes, and may have more after so
#: long (seconds).
GONE, BUSY, BUSY_S = "gone-", "busy-", 6
#: How long a black hole swallows a request, how much later a list knows of a message, and what counts as a stall
#: (seconds).
_HOLE_S, _BEHIND_S, _STALL_S = 30, 3, 0.25
#: How a caller names a notification in its texts; what follows a dot tells the steps apart.
_TOKEN = re.compile(r"\[(\w+)(?:\.\d+)?\]")
_STATUSES = {Mood.BUSY: 429, Mood.BROKEN: 503, Mood.BROKEN_TAKEN: 500}


def token_of(text: str) -> str:
    """Return the name that a text carries; empty if it has none."""
    found = _TOKEN.search(text)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Message:
    """An SMS that was taken."""

    sid: str
    to: str
    body: str
    sender: str | None
    service: str | None
    at: float

    def shown(self) -> dict[str, Any]:
        """Return it as Twilio shows it."""
        date = formatdate(self.at, usegmt=True)
        return {
            "sid": self.sid, "to": self.to, "body": self.body, "from": self.sender, "status": "delivered",
            "messaging_service_sid": self.service, "date_created": date, "date_sent": date, "date_updated": date,
            "error_code": None, "error_message": None, "price": "-0.0079", "price_unit": "USD", "num_segments": "1",
            "account_sid": ACCOUNT, "direction": "outbound-api", "num_media": "0", "api_version": "2010-04-01",
            "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{self.sid}.json", "subresource_uris": {},
        }  # fmt: skip


class Provider:
    """Both providers."""

    def __init__(self, book: Book, phones: Phones, seed: int) -> None:
        self._book = book
        self._phones = phones
        self._troubles = Troubles(seed)
        self._messages: dict[str, Message] = {}
        self._was_busy: set[str] = set()

    def application(self) -> web.Application:
        """Return what is served."""
        app = web.Application()
        messages = "/2010-04-01/Accounts/{account}/Messages"
        app.add_routes(
            [
                web.post("/token", self._grant),
                web.post("/v1/projects/{project}/messages:send", self._push),
                web.post(f"{messages}.json", self._sms),
                web.get(f"{messages}.json", self._list),
                web.get(f"{messages}/{{sid}}.json", self._fetch),
                web.post("/oracle/trouble", self._trouble),
            ]
        )
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        await self._phones.open()
        self._watch = asyncio.ensure_future(self._note_stalls())

    async def _stop(self, _: web.Application) -> None:
        self._watch.cancel()
        await self._phones.close()

    async def _note_stalls(self) -> None:
        before = time.time()
        while True:
            await asyncio.sleep(0.05)
            now = time.time()
            if now - before > _STALL_S:
                self._book.write(Stall(now, now - before))
            before = now

    async def _trouble(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted:
            until = time.time() + wanted.pop("seconds")
            door, mood = Door(wanted.pop("door")), Mood(wanted.pop("mood"))
            self._troubles.add(Trouble(door, mood, until, **wanted))
        else:
            self._troubles.clear()
        return web.Response()

    async def _grant(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        token = {"access_token": secrets.token_urlsafe(16), "expires_in": 3600, "token_type": "Bearer"}
        return await _answer(request, self._troubles.meet(Door.TOKEN), web.json_response(token))

    async def _push(self, request: web.Request) -> web.StreamResponse:
        message = (await request.json())["message"]
        at, trouble = time.time(), self._troubles.meet(Door.PUSH)
        registration = message.get("token") or message.get("fid")
        data, shown = message.get("data", {}), message.get("notification")
        gone = registration.startswith(GONE)
        answer = Answer.REFUSED if gone and trouble is None else _booked(trouble)
        busy = trouble is None and registration.startswith(BUSY) and registration not in self._was_busy
        if busy:
            self._was_busy.add(registration)
            answer = Answer.LATER
        title, body = (shown["title"], shown["body"]) if shown else ("", "")
        id_ = data.get("knocktwice_id") or data.get("knocktwice_withdraw") or data.get("id", "")
        token = token_of(body)
        self._book.write(PushAsked(at, answer, registration, id_, token, f"{title}|{body}", shown is None))
        if answer is Answer.REFUSED:
            return _fcm_error(404, "NOT_FOUND", "UNREGISTERED")
        if busy:
            refusal = _fcm_error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
            refusal.headers["Retry-After"] = str(BUSY_S)
            return refusal
        if shown and answer in (Answer.TAKEN, Answer.TAKEN_UNTOLD):
            self._phones.show(registration, data, token)
        name = {"name": f"projects/{request.match_info['project']}/messages/{secrets.token_hex(8)}"}
        return await _answer(request, trouble, web.json_response(name))

    async def _sms(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        at, trouble = time.time(), self._troubles.meet(Door.SMS)
        answer = _booked(trouble)
        taken = answer in (Answer.TAKEN, Answer.TAKEN_UNTOLD)
        sid = f"SM{secrets.token_hex(16)}" if taken else None
        self._book.write(SmsAsked(at, answer, form["To"], form["Body"], token_of(form["Body"]), sid))
        if sid is None:
            return await _answer(request, trouble, web.Response())
        message = Message(sid, form["To"], form["Body"], form.get("From"), form.get("MessagingServiceSid"), at)
        self._messages[sid] = message
        if callback := form.get("StatusCallback"):
            self._call_back(callback, message)
        return await _answer(request, trouble, web.json_response(message.shown() | {"status": "queued"}, status=201))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        trouble, number = self._troubles.meet(Door.LIST), request.query.get("To", "")
        behind = _BEHIND_S if trouble and trouble.mood is Mood.BEHIND else 0
        known = [m for m in self._messages.values() if m.at <= time.time() - behind and number in ("", m.to)]
        page = {"messages": [m.shown() for m in known[::-1]], "next_page_uri": None}
        told = trouble is None or trouble.mood is Mood.SLOW
        self._book.write(Listed(time.time(), number, told))
        usual = trouble is None or trouble.mood is Mood.BEHIND
        return await _answer(request, None if usual else trouble, web.json_response(page))

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        message = self._messages.get(request.match_info["sid"])
        if message is None:
            return web.json_response({"code": 20404, "status": 404}, status=404)
        return web.json_response(message.shown())

    def _call_back(self, url: str, message: Message) -> None:
        for status, delay_s in (("sent", 0.2), ("delivered", 0.6)):
            form = {"MessageSid": message.sid, "MessageStatus": status, "To": message.to, "ErrorCode": ""}
            self._phones.call_back(url, form, {"X-Twilio-Signature": signature(url, form)}, delay_s)


def signature(url: str, form: Mapping[str, str]) -> str:
    """Sign a request as Twilio does: https://www.twilio.com/docs/usage/security#validating-requests."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.digest(AUTH_TOKEN.encode(), signed.encode(), hashlib.sha1)).decode()


def _booked(trouble: Trouble | None) -> Answer:
    if trouble is None:
        return Answer.TAKEN
    if trouble.mood in TAKES:
        return Answer.TAKEN_UNTOLD
    return Answer.LATER if trouble.mood in _STATUSES else Answer.UNANSWERED


async def _answer(request: web.Request, trouble: Trouble | None, usual: web.Response) -> web.StreamResponse:
    if trouble is None:
        return usual
    if trouble.mood in _STATUSES:
        status = _STATUSES[trouble.mood]
        headers = {"Retry-After": str(int(trouble.wait_s))} if trouble.mood is Mood.BUSY else {}
        return _refusal(status, headers)
    if trouble.mood is Mood.SLOW:
        await asyncio.sleep(trouble.wait_s)
        return usual
    if trouble.mood in (Mood.HOLE, Mood.HOLE_TAKEN):
        await asyncio.sleep(_HOLE_S)
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(status: int, headers: Mapping[str, str]) -> web.Response:
    """Refuse for the moment, in words that both providers' clients understand."""
    google = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 500: "INTERNAL"}[status]
    error: dict[str, Any] = {"code": status, "status": google}
    if status == 429:
        # Only what is said of the whole project names a quota.
        quota = {"quota_limit": "FcmMessagesPerMinutePerProject", "service": "fcm.googleapis.com"}
        kind, reason = "type.googleapis.com/google.rpc.ErrorInfo", "RATE_LIMIT_EXCEEDED"
        error["details"] = [{"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": quota}]
    body = {"error": error, "code": {429: 20429, 503: 20503, 500: 20500}[status]}
    return web.Response(text=json.dumps(body), status=status, headers=headers, content_type="application/json")


def _fcm_error(status: int, google: str, code: str) -> web.Response:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    return web.json_response({"error": {"code": status, "status": google, "details": details}}, status=status)


def command(
    port: int, books: Path, log: Path, *, broker_url: str | None = None, durability: str = "disk", seed: int = 0
) -> list[str]:
    """Return what Python is to run.

    Args:
        books: the file of its books.
        log: where phones note what they were told.
        broker_url: for what is reported over the library.
        durability: how safely that is to be kept.
        seed: of its choices.
    """
    broker = [] if broker_url is None else ["--broker", broker_url, "--durability", durability]
    files = ["--books", str(books), "--log", str(log)]
    return ["-m", "oracle.provider", "--port", str(port), *files, "--seed", str(seed), *broker]


def environment(url: str, account_file: Path) -> dict[str, str]:
    """Return what points a worker here."""
    return {
        "KNOCKTWICE_FCM_URL": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(account_file),
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "KNOCKTWICE_TWILIO_FROM": SENDER,
        "KNOCKTWICE_TWILIO_URL": url,
    }


def send_stop(number: str, word: str) -> dict[str, str]:
    """Return the form with which Twilio passes on what somebody wrote back."""
    return {"MessageSid": f"SM{secrets.token_hex(16)}", "From": number, "To": SENDER, "Body": word}


def main() -> None:
    """Serve until the process is ended."""
    options = argparse.ArgumentParser()
    for name in ("--port", "--books", "--log", "--broker", "--durability", "--seed"):
        options.add_argument(name)
    given = options.parse_args()
    phones = Phones(Book(Path(given.log)), given.broker, given.durability)
    provider = Provider(Book(Path(given.books)), phones, int(given.seed))
    web.run_app(
        provider.application(), host="127.0.0.1", port=int(given.port), print=None, access_log=None, backlog=1024
    )


if __name__ == "__main__":
    main()
