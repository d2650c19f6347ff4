"""An application with two ways into the system, library and HTTP, that notes what it asked and what it was told."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from knocktwice import BrokerUnavailable, Client, InvalidMessage, Push, Recipient, Sms
from knocktwice_shared.ids import uuid7
from oracle.phones import told as told_by
from oracle.provider import send_stop, signature
from oracle.records import Book, Call, Cancel, Device, Notify, Phone, Step, Told, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What a call may take, and how often and how soon one under a key is repeated (seconds).
_PATIENCE_S, _REPEATS, _PAUSE_S = 4, 3, 0.4
#: Where people live whom nobody else calls: ``+1 650`` and an exchange from here on.
_EXCHANGE = 230
_SMS_TEXT = "Your table is ready, we keep it until 19:45. [{{{{ token }}}}.{}]"
_PUSH_TITLE, _PUSH_BODY = "Your table is ready", "We keep it until 19:45. [{}]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, apart from who asks how.

    Attributes:
        act: what the phone does with the push (:func:`oracle.phones.act`); ``None``: nothing is pushed.
        steps: trigger and countdown of each SMS; without a push the first one's do not count.
        critical: a second SMS is better than none.
    """

    user: str | None = None
    registrations: tuple[str, ...] = ()
    phone: str | None = None
    act: Mapping[str, str] | None = None
    steps: tuple[tuple[str, float], ...] = ()
    key: str | None = None
    in_s: float | None = None
    critical: bool = False


class Names:
    """Makes people, devices and texts that nobody else has."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._numbers = itertools.count()

    def token(self) -> str:
        """Return a name for a notification."""
        return f"n{self._run}{next(self._numbers):05}"

    def user(self) -> str:
        """Return a person's id."""
        return f"u{self._run}{next(self._numbers):05}"

    def registration(self, prefix: str = "device-") -> str:
        """Return a device's."""
        return f"{prefix}{self._run}-{next(self._numbers):05}-{'x' * 40}"

    def phone(self) -> str:
        """Return a number."""
        n = next(self._numbers)
        return f"+1650{_EXCHANGE + n // 10_000}{n % 10_000:04}"


class Callers:
    """The application. Threads may share it.

    Args:
        key: of the gateway.
        clients: how many connections the library has.
        crowd: how many people one call for many notifies, on average.
        durability: how safely the library wants its messages kept.
    """

    def __init__(
        self,
        broker_url: str,
        gateway_url: str,
        key: str,
        log: Book,
        *,
        run: str = "0",
        clients: int = 4,
        crowd: int = 20,
        durability: str = "disk",
    ) -> None:
        self.crowd = crowd
        self._clients = [Client(broker_url, timeout=_PATIENCE_S / 2, durability=durability) for _ in range(clients)]
        self._url = gateway_url
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=8)
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=gateway_url, headers=headers, timeout=_PATIENCE_S, limits=limits)
        self._log = log
        self.names = Names(run)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        for client in self._clients:
            client.close()

    def notify(self, wanted: Wanted, *, http: bool, token: str | None = None) -> Notify:
        """Notify somebody; under a key, again until there is an answer."""
        token = token or self.names.token()
        for _ in range(_REPEATS if wanted.key else 1):
            said = self._notify(wanted, token, http=http)
            self._log.write(said)
            if said.told is not Told.UNKNOWN:
                break
            time.sleep(_PAUSE_S)
        return said

    def notify_together(self, wanted: Wanted, count: int) -> None:
        """Notify so many people with one device each in one call of the library."""
        people = [
            replace(wanted, registrations=(self.names.registration(),), phone=self.names.phone()) for _ in range(count)
        ]
        planned = [_planned(one, self.names.token()) for one in people]
        recipients = [one.recipient() for one in planned]
        asked_at = time.time()
        told = self._by_library(lambda client: planned[0].send(client, recipients))
        for one in planned:
            self._log.write(one.record(Call(asked_at, time.time(), told), one.id, http=False))

    def cancel(self, said: Notify, *, http: bool) -> Told:
        """Stop one, again until there is an answer."""
        if http:
            body = {"keys": [said.key]} if said.key else {"ids": [said.id]}
            call = self._until_told(lambda: self._post("/v1/cancellations", body)[0])
        else:
            ids = () if said.key or said.id is None else (said.id,)
            call = self._until_told(lambda: self._by_library(lambda c: c.cancel(*ids, key=said.key)))
        self._log.write(Cancel(call.asked_at, call.told_at, call.told, said.token))
        return call.told

    def device(self, registration: str, user: str | None, *, enabled: bool = True, http: bool) -> Told:
        """Say whose a device is."""
        change = {"change": "register_device", "user": user, "notifications_enabled": enabled, "platform": "android"}
        if user is None:
            change = {"change": "unregister_device"}
        body = {"changes": [{**change, "registration": registration}]}

        def by_library(client: Client) -> None:
            if user is None:
                client.unregister_device(registration)
            else:
                client.register_device(user, registration, platform="android", notifications_enabled=enabled)

        ask = (lambda: self._post("/v1/audience", body)[0]) if http else (lambda: self._by_library(by_library))
        call = self._until_told(ask)
        self._log.write(Device(call.asked_at, call.told_at, call.told, registration, user, enabled))
        return call.told

    def phone(self, user: str, number: str, *, http: bool) -> Told:
        """Say which number somebody has."""
        body = {"changes": [{"change": "bind_phone", "user": user, "phone": number}]}
        ask = (
            (lambda: self._post("/v1/audience", body)[0])
            if http
            else (lambda: self._by_library(lambda client: client.bind_phone(user, number)))
        )
        call = self._until_told(ask)
        self._log.write(Phone(call.asked_at, call.told_at, call.told, user, number))
        return call.told

    def write_back(self, number: str, word: str) -> Told:
        """Let a person answer an SMS; the provider passes it on until it is taken."""
        form = send_stop(number, word)
        path = "/callbacks/twilio/inbound"
        headers = {"X-Twilio-Signature": signature(self._url + path, form)}
        call = self._until_told(lambda: self._form(path, form, headers))
        self._log.write(Wish(call.asked_at, call.told_at, call.told, number, word))
        return call.told

    def _notify(self, wanted: Wanted, token: str, *, http: bool) -> Notify:
        planned = _planned(wanted, token)
        asked_at = time.time()
        id_: str | None = planned.id
        if http:
            told, answer = self._post("/v1/notifications", planned.body())
            id_ = answer["ids"][0] if told is Told.ACCEPTED else None
        else:
            ids: list[UUID] = []
            told = self._by_library(lambda client: ids.extend(planned.send(client, [planned.recipient()])))
            id_ = str(ids[0]) if ids else id_
        return planned.record(Call(asked_at, time.time(), told), id_, http=http)

    def _until_told(self, ask: Callable[[], Told]) -> Call:
        """Call again until there is an answer. It began with the first try, and was answered with the last."""
        asked_at = time.time()
        for _ in range(2 * _REPEATS):
            told = ask()
            if told is not Told.UNKNOWN:
                break
            time.sleep(_PAUSE_S)
        return Call(asked_at, time.time(), told)

    def _by_library(self, work: Callable[[Client], object]) -> Told:
        try:
            work(random.choice(self._clients))
        except BrokerUnavailable:
            return Told.UNKNOWN
        except InvalidMessage:
            return Told.REFUSED
        return Told.ACCEPTED

    def _post(self, path: str, body: object) -> tuple[Told, dict[str, Any]]:
        try:
            answer = self._http.post(path, json=body)
            return told_by(answer.status_code), answer.json()
        except (httpx.HTTPError, ValueError):
            return Told.UNKNOWN, {}

    def _form(self, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Told:
        try:
            return told_by(self._http.post(path, data=form, headers=headers).status_code)
        except httpx.HTTPError:
            return Told.UNKNOWN


@dataclass(frozen=True, slots=True)
class _Planned:
    """A call in the words of both ways. The texts have a placeholder for the token."""

    wanted: Wanted
    texts: list[str]
    send_at: float | None
    token: str
    id: str

    def recipient(self) -> Recipient:
        """Return who it is for, as the library has it."""
        wanted = self.wanted
        params = {"token": self.token}
        return Recipient(wanted.user, wanted.registrations, wanted.phone, params, wanted.key, UUID(self.id))

    def send(self, client: Client, recipients: Sequence[Recipient]) -> list[UUID]:
        """Call the library."""
        wanted = self.wanted
        pairs = zip(wanted.steps, self.texts, strict=True)
        steps = [Sms(text, when=when, after=timedelta(seconds=after_s)) for (when, after_s), text in pairs]
        act = wanted.act
        push = None if act is None else Push(_PUSH_TITLE, _PUSH_BODY.format("{{ token }}"), data=act)
        what: dict[str, Any] = {"sms": steps[0]} if len(steps) == 1 else {"steps": steps} if steps else {}
        return client.notify_many(
            recipients, push=push, category="critical" if wanted.critical else None, send_at=self._moment(), **what
        )

    def record(self, call: Call, id_: str | None, *, http: bool) -> Notify:
        """Return what was asked and told."""
        wanted = self.wanted
        push = None if wanted.act is None else f"{_PUSH_TITLE}|{_PUSH_BODY.format(self.token)}"
        steps = tuple(
            Step(None if push is None and n == 0 else when, after_s, text.replace("{{ token }}", self.token))
            for n, ((when, after_s), text) in enumerate(zip(wanted.steps, self.texts, strict=True))
        )
        return Notify(
            call.asked_at, call.told_at, call.told, self.token, id_, "http" if http else "library", wanted.user,
            wanted.registrations, wanted.phone, push, steps, wanted.key, self.send_at, wanted.critical,
        )  # fmt: skip

    def body(self) -> dict[str, Any]:
        """Return the body for HTTP."""
        wanted = self.wanted
        who = {"user": wanted.user, "registrations": list(wanted.registrations) or None, "phone": wanted.phone}
        person = {**who, "params": {"token": self.token}, "key": wanted.key}
        plan: list[dict[str, Any]] = [
            {"channel": "sms", "when": when, "after_s": after_s, "text": text}
            for (when, after_s), text in zip(wanted.steps, self.texts, strict=True)
        ]
        what: dict[str, Any] = {"category": "critical" if wanted.critical else None, "plan": plan}
        if wanted.act is not None:
            what["push"] = {"title": _PUSH_TITLE, "body": _PUSH_BODY.format("{{ token }}"), "data": dict(wanted.act)}
        else:
            what = what | {"only": "sms", "sms": {"text": self.texts[0]}, "plan": None}
        if (at := self._moment()) is not None:
            what["send_at"] = at.isoformat()
        body = {**what, "recipients": [_without_nothing(person)]}
        return _without_nothing(body)

    def _moment(self) -> datetime | None:
        return None if self.send_at is None else datetime.fromtimestamp(self.send_at, UTC)


def _planned(wanted: Wanted, token: str) -> _Planned:
    first = 1 if wanted.act is not None else 0
    texts = [_SMS_TEXT.format(n) for n in range(first, first + len(wanted.steps))]
    send_at = None if wanted.in_s is None else time.time() + wanted.in_s
    return _Planned(wanted, texts, send_at, token, str(uuid7()))


def _without_nothing(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def repeated(wanted: Wanted, key: str) -> Wanted:
    """Return the same under a key."""
    return replace(wanted, key=key)
