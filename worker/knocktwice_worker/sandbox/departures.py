"""The events after the sandbox's answers: phones get pushes, texts change their status, and Twilio calls back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from knocktwice_shared.messages import Receipt
from knocktwice_worker.sandbox import twilio_json
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN
from knocktwice_worker.sandbox.books import Books, PostedCallback, ReceivedPush, SentText
from knocktwice_worker.sandbox.reachable_addresses import LOCAL

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from knocktwice_worker.sandbox.app_reports import AppReports
    from knocktwice_worker.sandbox.rules import Answer

#: Twilio waits this long (seconds) for a callback's answer, and calls once more if there is none.
_CALLBACK_TIMEOUT_S, _CALLBACK_TRIES = 15, 2
_USUAL_STATUSES = ("sent", "delivered")


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
        """Let a phone receive a push."""
        phone, loop = self._books.phone(push.registration), asyncio.get_running_loop()
        if phone.delivered_after is not None:
            loop.call_later(phone.delivered_after, self._delivered, push.name)
        if phone.clicked_after is not None:
            loop.call_later(phone.clicked_after, self.click, push.name)

    def click(self, name: str) -> bool:
        """Tap a push; return whether it was on the screen. Any thread may call; a stopped sandbox reports nothing."""
        push = self._books.mark_clicked(name)
        if push is None or push.clicked_at is None:
            return False
        self._apps.tell(push, Receipt.CLICKED, push.clicked_at)
        return True

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
        for status in statuses:
            await asyncio.sleep(answer.status_every)
            told = code if status in {"undelivered", "failed"} else None
            if self._books.advance_text(text.sid, status, told) is None:
                return
            if text.status_callback:
                posted = self._start(self._call_back(text.status_callback, _form(text, status, told), posted))

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
