"""The memory of the sandbox: the messages it accepted, phones, rules and counts. Threads may share it."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import uuid
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.sandbox.phones import Phone, undescribed
from knocktwice_worker.sandbox.records import SentText

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.sandbox.records import AppReport, PostedCallback, ReceivedPush, Reply, Webhook
    from knocktwice_worker.sandbox.rules import Answer, Kind, Rule

#: Statuses that no later one replaces, except that a delivered WhatsApp message may yet be read.
_FINAL = frozenset({"delivered", "read", "undelivered", "failed"})
#: For conditions on more than the books.
_LOOK_AGAIN_S = 0.02
_MOST_WEBHOOKS = 50


class Books:
    """Everything the sandbox remembers.

    Attributes:
        version: grows with every change, so that a reader knows when to look again.
    """

    #: How far the clock by which texts are dated is ahead of the real one.
    ahead = timedelta()

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self.version = 0
        self._reset()

    def _reset(self) -> None:
        self._pushes: dict[str, ReceivedPush] = {}
        self._texts: dict[str, SentText] = {}
        self._callbacks: list[PostedCallback] = []
        self._replies: list[Reply] = []
        self._webhooks: deque[Webhook] = deque(maxlen=_MOST_WEBHOOKS)
        self._phones: dict[str, Phone] = {}
        # Registration and tag → name of the push that the screen shows.
        self._shown: dict[tuple[str, str], str] = {}
        # Each with the requests left, and the end of its time on the monotonic clock.
        self._rules: list[tuple[Rule, int | None, float]] = []
        self._requests: Counter[str] = Counter()

    def clear(self, *, phones: bool = True) -> None:
        """Forget everything; ``phones=False``: except the phones."""
        with self._changed:
            kept = {} if phones else self._phones
            self._reset()
            self._phones = kept
            self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def wait_until(self, condition: Callable[[], object], timeout: float) -> bool:
        """Wait until the condition holds; it is looked at whenever something happens here, and now and then."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= end:
                return False
            with self._changed:
                self._changed.wait(_LOOK_AGAIN_S)
        return True

    def set_ahead(self, by: timedelta) -> None:
        """Date texts as if it were so much later."""
        with self._changed:
            self.ahead = by
            self._tell()

    def count(self, kind: Kind) -> None:
        """Note that a request came in."""
        with self._changed:
            self._requests[kind] += 1
            self._tell()

    def requests(self, kind: Kind) -> int:
        """Return how many came in."""
        with self._changed:
            return self._requests[kind]

    def add_rule(self, rule: Rule) -> None:
        """Add a rule behind those there are."""
        with self._changed:
            self._rules.append((rule, rule.times, time.monotonic() + (math.inf if rule.for_s is None else rule.for_s)))
            self._tell()

    def clear_rules(self) -> None:
        """Be ordinary again."""
        with self._changed:
            self._rules.clear()
            self._tell()

    def take_answer(self, kind: Kind, address: str | None) -> Answer | None:
        """Return what the first rule that matches says, and use it up by one."""
        with self._changed:
            for place, (rule, left, end) in enumerate(self._rules):
                if rule.kind == kind and rule.match in (None, address) and time.monotonic() < end:
                    if left == 1:
                        del self._rules[place]
                    elif left is not None:
                        self._rules[place] = (rule, left - 1, end)
                    return rule.answer
        return None

    def faults(self) -> list[str]:
        """Say which rules count at the moment."""
        with self._changed:
            now = time.monotonic()
            return [
                f"{rule.kind} {rule.match or 'of everybody'}: {rule.answer.error_code or rule.answer.status or 'odd'}"
                for rule, _, end in self._rules
                if now < end
            ]

    def add_phone(self, phone: Phone) -> None:
        """Describe a phone, or describe it anew."""
        with self._changed:
            self._phones[phone.registration] = phone
            self._tell()

    def phone(self, registration: str) -> Phone:
        """Return the phone with this registration, described or not."""
        with self._changed:
            return self._phones.get(registration) or undescribed(registration)

    def phones(self) -> list[Phone]:
        """Return the phones that were described or got a push."""
        with self._changed:
            seen = dict.fromkeys([*self._phones, *(push.registration for push in self._pushes.values())])
            return [self.phone(registration) for registration in seen]

    def phone_of(self, number: str) -> Phone | None:
        """Return the phone with this number, if one was described."""
        with self._changed:
            return next((p for p in self._phones.values() if p.number == number), None)

    def add_push(self, push: ReceivedPush) -> None:
        """Take a push that is on its way to a phone."""
        with self._changed:
            self._pushes[push.name] = push
            self._tell()

    def show(self, name: str) -> None:
        """Put a push on its phone's screen, in the place of one with the same tag."""
        with self._changed:
            push = self._pushes.get(name)
            if push is not None and push.withdrawn_at is None:
                self._shown[push.registration, push.tag] = name
                self._note(dataclasses.replace(push, shown_at=datetime.now(UTC)))

    def on_screen(self, registration: str) -> list[str]:
        """Return the names of the pushes that a phone's screen shows."""
        with self._changed:
            return [name for (owner, _), name in self._shown.items() if owner == registration]

    def dismiss(self, name: str) -> bool:
        """Note that the owner swiped a push away. Returns ``False`` if the screen does not show it."""
        with self._changed:
            push = self._pushes.get(name)
            if push is None or self._shown.get((push.registration, push.tag)) != name:
                return False
            del self._shown[push.registration, push.tag]
            self._note(dataclasses.replace(push, dismissed_at=datetime.now(UTC)))
            return True

    def pushes(self, registration: str | None = None) -> list[ReceivedPush]:
        """Return the pushes that were taken, oldest first."""
        with self._changed:
            return [p for p in self._pushes.values() if registration in (None, p.registration)]

    def last_push(self, registration: str) -> ReceivedPush | None:
        """Return the newest push to a phone."""
        pushes = self.pushes(registration)
        return pushes[-1] if pushes else None

    def mark_delivered(self, name: str) -> ReceivedPush | None:
        """Note the phone's receipt. Returns ``None`` if the push is forgotten."""
        with self._changed:
            push = self._pushes.get(name)
            return push and self._note(dataclasses.replace(push, delivered_at=datetime.now(UTC)))

    def mark_clicked(self, name: str) -> ReceivedPush | None:
        """Note the tap. Returns ``None`` if the screen does not show the push any more."""
        with self._changed:
            push = self._pushes.get(name)
            if push is None or self._shown.get((push.registration, push.tag)) != name:
                return None
            # A tap takes the notification off the screen.
            del self._shown[push.registration, push.tag]
            return self._note(dataclasses.replace(push, clicked_at=datetime.now(UTC)))

    def withdraw(self, registration: str, tag: str) -> None:
        """Take a push off a phone's screen, as its app does when a silent push says so."""
        with self._changed:
            name = self._shown.pop((registration, tag), None)
            waiting = (p.name for p in self._pushes.values() if p.registration == registration and p.tag == tag)
            for found in [name] if name else [n for n in waiting if self._pushes[n].shown_at is None]:
                self._note(dataclasses.replace(self._pushes[found], withdrawn_at=datetime.now(UTC)))

    def note_report(self, name: str, report: AppReport) -> None:
        """Note what came of a receipt, in the place of what came of it before."""
        with self._changed:
            push = self._pushes.get(name)
            if push is not None:
                others = (one for one in push.reports if one.kind != report.kind)
                self._note(dataclasses.replace(push, reports=(*others, report)))

    def _note(self, push: ReceivedPush) -> ReceivedPush:
        self._pushes[push.name] = push
        self._tell()
        return push

    def add_text(
        self,
        *,
        to: str,
        body: str,
        sender: str | None,
        messaging_service: str | None,
        status_callback: str | None,
        validity_s: int | None = None,
        media: tuple[str, ...] = (),
    ) -> SentText:
        """Take an SMS."""
        text = SentText(
            sid=f"{'MM' if media else 'SM'}{uuid.uuid4().hex}",
            to=to,
            body=body,
            status="accepted" if messaging_service else "queued",
            created_at=datetime.now(UTC) + self.ahead,
            status_callback=status_callback,
            sender=sender,
            messaging_service=messaging_service,
            validity_s=validity_s,
            media=media,
        )
        with self._changed:
            self._texts[text.sid] = text
            self._tell()
        return text

    def text(self, sid: str) -> SentText | None:
        """Return one SMS."""
        with self._changed:
            return self._texts.get(sid)

    def texts(self, to: str | None = None) -> list[SentText]:
        """Return the SMS that exist, oldest first."""
        with self._changed:
            return [t for t in self._texts.values() if to in (None, t.to)]

    def advance_text(self, sid: str, status: str, error_code: int | None) -> SentText | None:
        """Note an SMS's next status; a final one stays. Returns ``None`` if the SMS is forgotten."""
        with self._changed:
            text = self._texts.get(sid)
            if text is None:
                return None
            now = datetime.now(UTC)
            kept = text.status in _FINAL and (text.status, status) != ("delivered", "read")
            advanced = self._texts[sid] = dataclasses.replace(
                text,
                status=text.status if kept else status,
                error_code=text.error_code if kept else error_code,
                sent_at=text.sent_at or (now if status in {"sent", "delivered"} else None),
                updated_at=now,
                statuses=(*text.statuses, status),
            )
            self._tell()
            return advanced

    def add_callback(self, callback: PostedCallback) -> None:
        """Note a callback."""
        with self._changed:
            self._callbacks.append(callback)
            self._tell()

    def callbacks(self) -> list[PostedCallback]:
        """Return the callbacks, in the order in which they ended."""
        with self._changed:
            return list(self._callbacks)

    def add_reply(self, reply: Reply) -> None:
        """Note what a phone's owner wrote."""
        with self._changed:
            self._replies.append(reply)
            self._tell()

    def replies(self) -> list[Reply]:
        """Return what was written, oldest first."""
        with self._changed:
            return list(self._replies)

    def add_webhook(self, webhook: Webhook) -> None:
        """Note a webhook that came in."""
        with self._changed:
            self._webhooks.append(webhook)
            self._tell()

    def webhooks(self) -> list[Webhook]:
        """Return the newest webhooks, oldest first."""
        with self._changed:
            return list(self._webhooks)
