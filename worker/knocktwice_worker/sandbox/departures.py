"""What happens after an answer: phones report receipts, texts go from status to status and Twilio calls back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

import aiohttp
import structlog
from yarl import URL

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.sandbox import twilio_json
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN
from knocktwice_worker.sandbox.books import Books, PostedCallback, ReceivedPush, SentText

if TYPE_CHECKING:
    from datetime import datetime

    from knocktwice_worker.sandbox.rules import Answer

log = structlog.get_logger(__name__)

#: Callbacks go nowhere else.
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
#: Twilio waits this long (seconds) for a callback's answer, and calls once more if there is none.
_CALLBACK_TIMEOUT_S, _CALLBACK_TRIES = 15, 2
_USUAL_STATUSES = ("sent", "delivered")

Report = Callable[[ReceiptEvent], object]


class Departures:
    """Runs on the server's loop from :meth:`open` to :meth:`close`."""

    def __init__(self, books: Books, report: Report | None) -> None:
        self._books = books
        self._report = report
        self._reporter: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Get ready."""
        # One thread: a phone's receipts are reported in the order in which they happened.
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="knocktwice-sandbox-report")
        timeout = aiohttp.ClientTimeout(total=_CALLBACK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "TwilioProxy/1.1"})

    async def close(self) -> None:
        """Forget what has not happened yet."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            reporter.shutdown(wait=False, cancel_futures=True)

    def arrive(self, push: ReceivedPush) -> None:
        """Let a phone receive a push."""
        phone, loop = self._books.phone(push.registration), asyncio.get_running_loop()
        if phone.delivered_after is not None:
            loop.call_later(phone.delivered_after, self._delivered, push.name)
        if phone.clicked_after is not None:
            loop.call_later(phone.clicked_after, self.click, push.name)

    def click(self, name: str) -> bool:
        """Tap a push. Returns whether the screen still showed it. Any thread may call; a stopped sandbox reports nothing."""
        push = self._books.mark_clicked(name)
        if push is None:
            return False
        self._tell(push, Receipt.CLICKED, push.clicked_at)
        return True

    def depart(self, text: SentText, answer: Answer) -> None:
        """Let a text go its way."""
        self._start(self._travel(text, answer))

    def _delivered(self, name: str) -> None:
        push = self._books.mark_delivered(name)
        if push is not None:
            self._tell(push, Receipt.DELIVERED, push.delivered_at)

    def _tell(self, push: ReceivedPush, kind: Receipt, at: datetime | None) -> None:
        if self._report is None or self._reporter is None or at is None:
            return
        try:
            event = ReceiptEvent(UUID(push.notification_id or ""), kind, at, push.registration)
        except ValueError:
            # A push that is not ours has nothing to report on.
            return
        self._reporter.submit(self._call, self._report, event)

    @staticmethod
    def _call(report: Report, event: ReceiptEvent) -> None:
        try:
            report(event)
        except Exception:
            log.exception("a virtual phone could not report", notification=str(event.notification), kind=event.kind)

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
        local = address.host in _LOCAL
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
