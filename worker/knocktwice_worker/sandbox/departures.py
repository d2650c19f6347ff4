"""The events after the sandbox's answers: phones get pushes, texts change their status, and Twilio calls back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from knocktwice_shared.messages import Receipt
from knocktwice_worker.channels.twilio.callbacks import INBOUND
from knocktwice_worker.sandbox import twilio_json
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN, SENDER
from knocktwice_worker.sandbox.reachable_addresses import LOCAL
from knocktwice_worker.sandbox.records import PostedCallback, ReceivedPush, Reply, SentText

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from knocktwice_worker.sandbox.app_reports import AppReports
    from knocktwice_worker.sandbox.books import Books
    from knocktwice_worker.sandbox.rules import Answer

#: Twilio waits this long (seconds) for a callback's answer, and calls once more if there is none.
_CALLBACK_TIMEOUT_S, _CALLBACK_TRIES = 15, 2
_USUAL_STATUSES = ("sent", "delivered")
#: Twilio's longest and usual ``ValidityPeriod``, in seconds, and its error when that is over.
_VALIDITY_S, _EXPIRED = 36_000, 30036
#: Seconds between two looks at a phone in airplane mode.
_OFFLINE_LOOK_S = 0.1
#: How long FCM keeps a push without a TTL.
_LONGEST_TTL = timedelta(days=28)


class Departures:
    """Runs on the server's loop from :meth:`open` to :meth:`close`.

    Args:
        books: what there is.
        apps: told of what happens to a push on its phone.
    """

    def __init__(self, books: Books, apps: AppReports) -> None:
        self._books = books
        self._apps = apps
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Get ready."""
        timeout = aiohttp.ClientTimeout(total=_CALLBACK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "TwilioProxy/1.1"})

    async def close(self) -> None:
        """Forget what has not happened yet."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def arrive(self, push: ReceivedPush) -> None:
        """Let a phone receive a push, now or when it is online again."""
        phone, loop = self._books.phone(push.registration), asyncio.get_running_loop()
        if phone.offline or not phone.notifications_enabled:
            return
        self._books.show(push.name)
        if phone.delivered_after is not None:
            loop.call_later(phone.delivered_after, self._delivered, push.name)
        if phone.clicked_after is not None:
            loop.call_later(phone.clicked_after, self.click, push.name)

    def come_online(self, registration: str) -> None:
        """Let a phone receive the pushes that waited for it and are still valid."""
        now = datetime.now(UTC)
        for push in self._books.pushes(registration):
            if push.shown_at is None and push.withdrawn_at is None and now < push.at + _valid_for(push):
                self.arrive(push)

    def click(self, name: str) -> bool:
        """Tap a push; return whether it was on the screen. Any thread may call; a stopped sandbox reports nothing."""
        push = self._books.mark_clicked(name)
        if push is None or push.clicked_at is None:
            return False
        self._apps.tell(push, Receipt.CLICKED, push.clicked_at)
        return True

    async def write_back(self, number: str, body: str, gateway: str | None) -> None:
        """Send what a phone's owner writes to the sender of the last text, as Twilio hands it on.

        Args:
            number: the owner's.
            gateway: its public URL; ``None``: there is nobody to hand it to.
        """
        received = [t for t in self._books.texts() if t.to.removeprefix("whatsapp:") == number]
        whatsapp = bool(received) and received[-1].to.startswith("whatsapp:")
        sender = (received[-1].sender if received else None) or SENDER
        form = {
            "AccountSid": ACCOUNT_SID,
            "ApiVersion": twilio_json.API_VERSION,
            "MessageSid": f"SM{uuid.uuid4().hex}",
            "From": f"whatsapp:{number}" if whatsapp else number,
            "To": sender,
            "Body": body,
            "NumMedia": "0",
        }
        url = f"{(gateway or '').rstrip('/')}{INBOUND.path}"
        at, answered = datetime.now(UTC), None
        if URL(url).host in LOCAL:
            answered = await self._post(URL(url), form, sign(url, form))
        self._books.add_reply(Reply(number, sender, body, at, answered))

    def depart(self, text: SentText, answer: Answer) -> None:
        """Let a text go its way."""
        self._start(self._travel(text, answer))

    def _delivered(self, name: str) -> None:
        push = self._books.mark_delivered(name)
        if push is not None and push.delivered_at is not None:
            self._apps.tell(push, Receipt.DELIVERED, push.delivered_at)

    async def _travel(self, text: SentText, answer: Answer) -> None:
        statuses = _USUAL_STATUSES if answer.statuses is None else answer.statuses
        code = answer.error_code if isinstance(answer.error_code, int) and answer.statuses else None
        # The answer comes first, as it nearly always does.
        await asyncio.sleep(answer.latency)
        posted: asyncio.Task[None] | None = None
        for planned in statuses:
            status = planned
            await asyncio.sleep(answer.status_every)
            if status in {"delivered", "read"} and not await self._reachable(text):
                status, code = "undelivered", _EXPIRED
            told = code if status in {"undelivered", "failed"} else None
            if self._books.advance_text(text.sid, status, told) is None:
                return
            if text.status_callback:
                posted = self._start(self._call_back(text.status_callback, _form(text, status, told), posted))

    async def _reachable(self, text: SentText) -> bool:
        """Wait while the phone is offline; return ``False`` if the text expires meanwhile."""
        number = text.to.removeprefix("whatsapp:")
        while (phone := self._books.phone_of(number)) and phone.offline:
            if datetime.now(UTC) > text.created_at + timedelta(seconds=text.validity_s or _VALIDITY_S):
                return False
            await asyncio.sleep(_OFFLINE_LOOK_S)
        return True

    async def _call_back(self, url: str, form: Mapping[str, str], previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            # A text's callbacks keep their order, which a slow receiver could upset.
            await asyncio.wait([previous])
        signature = sign(url, form)
        # As it was given: the signature is over these very characters.
        address = URL(url, encoded=True)
        local = address.host in LOCAL
        answered: int | None = None
        for _ in range(_CALLBACK_TRIES if local else 0):
            answered = await self._post(address, form, signature)
            if answered is not None and answered < 500:
                break
        self._books.add_callback(PostedCallback(url, form, signature, answered, local))

    async def _post(self, address: URL, form: Mapping[str, str], signature: str) -> int | None:
        headers = {"X-Twilio-Signature": signature}
        try:
            # A redirect could lead off this machine.
            async with self._session.post(address, data=form, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        # The loop itself holds tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _valid_for(push: ReceivedPush) -> timedelta:
    """Return how long FCM keeps a push for a phone that is offline."""
    ttl = push.message.get("android", {}).get("ttl")
    return timedelta(seconds=float(ttl.removesuffix("s"))) if ttl else _LONGEST_TTL


def sign(url: str, form: Mapping[str, str]) -> str:
    """Return ``X-Twilio-Signature`` (https://www.twilio.com/docs/usage/security#validating-requests)."""
    signed = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    return base64.b64encode(hmac.digest(AUTH_TOKEN.encode(), signed.encode(), hashlib.sha1)).decode()


def _form(text: SentText, status: str, code: int | None) -> dict[str, str]:
    form = {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": twilio_json.API_VERSION,
        "MessageSid": text.sid,
        "MessageStatus": status,
        "SmsSid": text.sid,
        "SmsStatus": status,
        "To": text.to,
    }
    if text.sender:
        form["From"] = text.sender
    if text.messaging_service:
        form["MessagingServiceSid"] = text.messaging_service
    if code is not None:
        form["ErrorCode"] = str(code)
    return form
