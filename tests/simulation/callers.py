"""The application, phones and people of a run: what they say to the product's own doors, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice import Push, Sms, drafts
from knocktwice_shared.names import Task
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish as Wanted
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.gateway.intake.callbacks import CallbackIntake
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import pauses
from knocktwice_worker.switches.audit import By
from oracle.case import IN_BOOKS
from oracle.records import (
    Cancel,
    Device,
    Evidence,
    FailedLater,
    Fault,
    Notify,
    Paused,
    Phone,
    Receipt,
    Step,
    Told,
    Wish,
)
from simulation.installation import GATEWAY
from simulation.provider import GONE, in_books

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oracle.records import PushAsked, SmsAsked
    from simulation.installation import Installation
    from simulation.queues import Message, Queues
    from simulation.script import Notice, Said

#: Seconds within which two texts of one batch may reach the provider.
_TOGETHER_S = 0.5
_TITLE, _BODY, _TEXT = "Your table is ready", "We keep it. [{}]", "Your table is ready. [{{{{ token }}}}.{}]"
_PICTURE = "https://shop.example/table.png"
#: What names the notification by its id, which with a blast nobody has before a worker has made it.
_BY_ID = frozenset({"delivered", "clicked", "seen", "reply", "failed"})
#: What an application says of a person, not of a notification.
OF_PEOPLE = frozenset({"new number", "no number", "logout", "erase"})
_OPERATOR = By("somebody", "the simulation says so")
_TASKS = {"delivered": Task.RECORD_EVENTS, "clicked": Task.RECORD_EVENTS, "cancel": Task.CANCEL}


@dataclass
class Callers:
    """All who speak to the system.

    Attributes:
        tell: notes what they say, for the story.
        ids: of the notifications, by their place in the script.
    """

    here: Installation
    queues: Queues
    evidence: Evidence
    tell: Callable[[str], None]
    ids: dict[int, UUID] = field(default_factory=dict)
    _plans: dict[int, Notify] = field(default_factory=dict)
    _phones: dict[int, str] = field(default_factory=dict)
    _blasts: set[int] = field(default_factory=set)

    def may_say(self, said: Said) -> bool:
        """Whether anybody can say this: the notification was asked for, and its push is there if a phone reports it."""
        if said.about not in self._plans:
            return False
        token = self._plans[said.about].token
        if said.what in OF_PEOPLE:
            return self._plans[said.about].user is not None
        if said.what in _BY_ID and said.about in self._blasts:
            self.find_ids()
        if said.what in _BY_ID and said.about not in self.ids:
            return False
        asked: Sequence[PushAsked | SmsAsked] = (
            self.evidence.texts if said.what in ("reply", "failed") else self.evidence.pushes
        )
        if said.what not in ("delivered", "clicked", "reply", "failed"):
            return True
        if said.what == "reply":
            # A message that went to nobody gets no answer. An answer is about the newest SMS to a number; of two that left
            # together nobody can tell which one it is about.
            failed = {failure.sid for failure in self.evidence.failures}
            numbers = self._numbers(self._plans[said.about])
            arrived = [text for text in self.evidence.texts if text.sid not in failed and text.answer in IN_BOOKS]
            asked = [text for text in arrived if text.number in numbers][-2:]
            if len(asked) == 2 and asked[0].token != asked[1].token and asked[1].at - asked[0].at < _TOGETHER_S:
                return False
            asked = asked[-1:]
        return any(message.token == token and message.answer in IN_BOOKS for message in asked)

    def notify(self, place: int, notice: Notice) -> None:
        """Ask for a notification; whoever is known signs up in the moments before."""
        clock, client = self.here.clock, self.here.application.of(notice.project, test=notice.test)
        token = f"n{place}x{clock.began:.0f}"
        phone = self._phones.setdefault(notice.number, "") or self.here.phone()
        self._phones[notice.number] = phone
        user = f"u{notice.number}x{clock.began:.0f}" if notice.known or notice.blast else None
        registration = f"{GONE if notice.device == 'gone' else 'device-'}{token}-{'x' * 30}"
        registrations = () if notice.device == "none" else (registration,)
        if user is not None and notice.blast:
            self._known_for_long(user, phone, registrations, token)
        elif user is not None and notice.inline:
            self._introduced(user, phone, registrations)
        elif user is not None:
            self._sign_up(user, phone, registrations)
        media = (_PICTURE,) if notice.media else ()
        steps = [
            Sms(_TEXT.format(n), when=when, after=timedelta(seconds=after), media=media)
            for n, (when, after) in enumerate(notice.steps, 1)
        ]
        given: dict[str, Any] = {"user": user} if user else {"phone": phone}
        if user and notice.inline:
            given["phone"] = phone
        if registrations and (notice.inline or not user):
            given["registrations"] = registrations
        pushed = bool(registrations or user)
        if pushed:
            given["push"] = Push(_TITLE, _BODY.format(token))
        if notice.in_s is not None:
            given["send_at"] = clock.moment + timedelta(seconds=notice.in_s)
        key = token if notice.keyed else None
        if notice.key_of is not None:
            key = f"n{notice.key_of}x{clock.began:.0f}"
        category = "critical" if notice.critical else None
        if notice.blast:
            key = token
            given.pop("user")
            self._blasts.add(place)
        for _ in range(2 if notice.keyed else 1):
            asked_at = clock.now
            id_: UUID | None = None
            if notice.blast:
                everybody = {"field": "tags.run", "op": "=", "value": token}
                client.blast(everybody, key=token, params={"token": token}, category=category, steps=steps, **given)
            else:
                id_ = client.notify(params={"token": token}, key=key, category=category, steps=steps, **given)
                self.ids.setdefault(place, id_)
            self._take()
            said = Notify(
                asked_at,
                clock.now,
                Told.ACCEPTED,
                token,
                None if id_ is None else str(id_),
                "library",
                user,
                registrations if not user else (),
                phone if not user else None,
                f"{_TITLE}|{_BODY.format(token)}" if pushed else None,
                tuple(
                    Step(
                        when if pushed or n > 1 else None,
                        after,
                        in_books(_TEXT.format(n).replace("{{ token }}", token), media),
                    )
                    for n, (when, after) in enumerate(notice.steps, 1)
                ),
                key,
                None if notice.in_s is None else asked_at + notice.in_s,
                notice.critical,
                notice.test,
            )
            self.evidence.add(said)
            self._plans[place] = said
            how = "starts the blast" if notice.blast else "notifies"
            self.tell(f"the application {how} {token}{f' (user {user})' if user else ''}: accepted")

    def _sign_up(self, user: str, phone: str, registrations: tuple[str, ...]) -> None:
        clock, client = self.here.clock, self.here.application
        now = clock.now
        for registration in registrations:
            client.register_device(user, registration, platform="android")
            self.evidence.add(Device(now, now, Told.ACCEPTED, registration, user))
        client.bind_phone(user, phone)
        self.evidence.add(Phone(now, now, Told.ACCEPTED, user, phone))
        self._take()
        self.tell(f"the application registers {user}, a device and a number: accepted")

    def _introduced(self, user: str, phone: str, registrations: tuple[str, ...]) -> None:
        now = self.here.clock.now
        self.evidence.add(Phone(now, now, Told.ACCEPTED, user, phone))
        for registration in registrations:
            self.evidence.add(Device(now, now, Told.ACCEPTED, registration, user))

    def _known_for_long(self, user: str, phone: str, registrations: tuple[str, ...], tag: str) -> None:
        """Somebody who signed up before the run, and whom a segment knows by their tag."""
        now, here = self.here.clock.now, self.here.actors[GATEWAY]
        changes = [drafts.audience("bind_phone", user=user, phone=phone)]
        changes += [
            drafts.audience("register_device", user=user, registration=registration, platform="android")
            for registration in registrations
        ]
        changes.append(drafts.audience("set_tags", user=user, tags={"run": tag}))
        here.accepted[Task.UPDATE_AUDIENCE]([change.wire for change in changes])
        self.evidence.add(Phone(now, now, Told.ACCEPTED, user, phone))
        for registration in registrations:
            self.evidence.add(Device(now, now, Told.ACCEPTED, registration, user))

    def _take(self) -> None:
        self.queues.collect(self.here.redis)

    def find_ids(self) -> None:
        """Look up the notifications of blasts, which are named by the worker that takes its people."""
        for place in self._blasts - self.ids.keys():
            asked = {"token": self._plans[place].token}
            for (id_,) in self.here.sessions.ask(
                "SELECT id::text FROM notifications WHERE params->>'token' = %(token)s", asked
            ):
                self.ids[place] = UUID(id_)

    def say(self, said: Said) -> Message | None:
        """Report a receipt, cancel, or say something of a person; return the message, unless the broker lost it."""
        clock, client, plan = self.here.clock, self.here.application, self._plans[said.about]
        before = len(self.queues.messages)
        if said.what == "wipe":
            self.here.redis.lose_limits()
            self.tell("Redis loses the counts of the limits")
            return None
        if said.what in OF_PEOPLE:
            self._say_of_a_person(said, plan)
            return self.queues.messages[-1] if len(self.queues.messages) > before else None
        if said.what == "cancel" and said.about in self._blasts:
            client.cancel(blast=plan.token)
            self.evidence.add(Cancel(clock.now, clock.now, Told.ACCEPTED, plan.token))
        elif said.what == "cancel":
            client.cancel(self.ids[said.about])
            self.evidence.add(Cancel(clock.now, clock.now, Told.ACCEPTED, plan.token))
        else:
            id_ = self.ids[said.about]
            registration = next(iter(plan.registrations), f"device-{plan.token}-{'x' * 30}")
            reports = {
                "clicked": client.record_clicked, "delivered": client.record_delivered, "seen": client.record_seen
            }  # fmt: skip
            reports[said.what](id_, registration=registration)
            self.evidence.add(
                Receipt(clock.now, clock.now, Told.ACCEPTED, str(id_), plan.token, said.what, registration)
            )
        self._take()
        self.tell(f"{said.what} of {plan.token}: accepted")
        return self.queues.messages[-1] if len(self.queues.messages) > before else None

    def _say_of_a_person(self, said: Said, plan: Notify) -> None:
        """Give a person another number or none, log a device out, or erase the person."""
        clock, client, user = self.here.clock, self.here.application, str(plan.user)
        now = clock.now
        match said.what:
            case "logout":
                for device in [device for device in self.evidence.devices if device.user == user]:
                    client.unregister_device(device.registration, user=user)
                    self.evidence.add(Device(now, now, Told.ACCEPTED, device.registration, None))
            case "erase":
                client.erase_user(user)
                for other in self._plans.values():
                    if other.user == user:
                        self.evidence.add(Cancel(now, now, Told.ACCEPTED, other.token))
            case _:
                number = self.here.phone() if said.what == "new number" else None
                client.bind_phone(user, number)
                self.evidence.add(Phone(now, now, Told.ACCEPTED, user, number))
        self._take()
        self.tell(f"{said.what} of {user}: accepted")

    def reporting(self, said: Said) -> Callable[[], None]:
        """Return what the gateway does when the provider reports that it sent an SMS to nobody."""
        clock, plan = self.here.clock, self._plans[said.about]
        sid = next(str(text.sid) for text in self.evidence.texts[::-1] if text.token == plan.token and text.sid)
        asked_at = clock.now
        mend = "Twilio 30002: the account is suspended"
        report = StatusReport("twilio", sid, ProviderState.FAILED, clock.moment, 30002, operators=mend)
        self.evidence.faults.append(Fault(asked_at, asked_at + 300, "the provider sends to nobody"))

        def told(how: Told) -> None:
            self.evidence.add(FailedLater(asked_at, clock.now, how, plan.token, sid))

        return self._doing(
            lambda: CallbackIntake(self.here.actors[GATEWAY])._write([report]), told, f"{sid} went to nobody: recorded"
        )

    def switching(self, said: Said) -> Callable[[], None]:
        """Return what the gateway does when an operator pauses SMS, or lets them go on."""
        clock, engine = self.here.clock, self.here.actors[GATEWAY].engine
        asked_at = clock.now
        until = asked_at + said.seconds

        def switch() -> None:
            with engine.begin() as conn:
                if said.what == "pause":
                    pauses.pause(conn, Scope("sms"), _OPERATOR, span=timedelta(seconds=said.seconds))
                elif pauses.list_all(conn):
                    pauses.resume(conn, Scope(), _OPERATOR, everything=True)

        def told(how: Told) -> None:
            if said.what == "pause":
                self.evidence.add(Paused(asked_at, clock.now, how, until))
                return
            known = self.evidence.pauses
            known[:] = [replace(one, until=min(one.until, asked_at)) for one in known]

        return self._doing(switch, told, f"{said.what} of all SMS: done")

    def _doing(self, work: Callable[[], None], told: Callable[[Told], None], story: str) -> Callable[[], None]:
        """Return what the gateway does, and what its caller is told of it."""

        def do() -> None:
            try:
                work()
            except BaseException as error:
                # The caller gets no good answer, or none.
                told(Told.UNKNOWN)
                if not isinstance(error, Exception):
                    raise
                return
            told(Told.ACCEPTED)
            self.tell(story)

        return do

    def writing(self, said: Said) -> Callable[[], None]:
        """Return what the gateway does when somebody writes STOP, START or something else."""
        clock, plan = self.here.clock, self._plans[said.about]
        number = next(iter(self._numbers(plan)))
        asked_at = clock.now
        wish = None if said.what == "reply" else Wanted[said.what]
        sender = self.here.settings.twilio_from
        one = InboundText(f"SM-{said.what}-{asked_at}-{number}", number, wish, "Yes", "twilio", "sms", sender)

        def told(how: Told) -> None:
            if wish is None:
                id_ = str(self.ids[said.about])
                self.evidence.add(Receipt(asked_at, clock.now, how, id_, plan.token, "replied", ""))
            else:
                self.evidence.add(Wish(asked_at, clock.now, how, number, said.what))

        return self._doing(
            lambda: CallbackIntake(self.here.actors[GATEWAY])._write([one]),
            told,
            f"{said.what} of {plan.token}'s number: recorded",
        )

    def _numbers(self, plan: Notify) -> list[str]:
        if plan.phone is not None:
            return [plan.phone]
        return [phone.number for phone in self.evidence.phones if phone.user == plan.user and phone.number is not None]
