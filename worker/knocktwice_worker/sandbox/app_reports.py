"""The receipts of the app on a virtual phone, sent to the address in the push or else through the app's backend.

An app without any library sends its receipts to the address in the push over real HTTP (``docs/receipts.md``); a
backend calls the producer library. If the gateway does not answer, the receipt is tried again for a while. The result
is in the sandbox's books and on its page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

import aiohttp
import structlog
from yarl import URL

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.channels.fcm import RECEIPT_FIELD
from knocktwice_worker.sandbox.reachable_addresses import receipt_address
from knocktwice_worker.sandbox.records import AppReport, ReceivedPush

if TYPE_CHECKING:
    from datetime import datetime

    from knocktwice_worker.sandbox.books import Books

log = structlog.get_logger(__name__)

#: Seconds for which an app waits for an answer, and before each further try.
_TIMEOUT_S, _PAUSES_S = 5, (0.2, 0.5, 1, 2, 4, 8, 15, 30)
#: It waits no longer than this (seconds) because a gateway asks for it.
_PATIENCE_S = 30
#: Answers besides 5xx that another try may change.
_PASSING = frozenset({408, 425, 429})

Report = Callable[[ReceiptEvent], object]


class AppReports:
    """Runs on the server's loop from :meth:`open` to :meth:`close`.

    Args:
        books: where it is noted what became of each.
        report: the application's backend, called off the loop and one at a time; ``None`` if there is none.
        gateway: the gateway's public URL; on this machine it need not be told.
    """

    def __init__(self, books: Books, report: Report | None, gateway: str | None) -> None:
        self._books = books
        self._report = report
        self._gateway = gateway
        self._backend: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Get ready."""
        # One thread: receipts are reported in the order in which they happened.
        self._backend = ThreadPoolExecutor(1, thread_name_prefix="knocktwice-sandbox-report")
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "knocktwice-sandbox-phone"})
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Forget what has not been reported yet."""
        self._loop = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.shutdown(wait=False, cancel_futures=True)

    def tell(self, push: ReceivedPush, kind: Receipt, at: datetime) -> None:
        """Report what happened to a push. Any thread may call; a stopped sandbox reports nothing."""
        address = push.data.get(RECEIPT_FIELD, "")
        # If the sandbox is stopped meanwhile, both ways end.
        with suppress(RuntimeError):
            if self._loop is not None and receipt_address(address, self._gateway):
                self._loop.call_soon_threadsafe(self._start, push.name, address, kind)
            elif self._report is not None and self._backend is not None and (id_ := _notification(push)) is not None:
                self._backend.submit(_call, self._report, ReceiptEvent(id_, kind, at, push.registration))

    def _start(self, name: str, address: str, kind: Receipt) -> None:
        task = asyncio.get_running_loop().create_task(self._request(name, URL(f"{address}/{kind}", encoded=True), kind))
        # The loop itself holds tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, name: str, address: URL, kind: Receipt) -> None:
        answered, wait_s = None, 0.0
        for tried, pause in enumerate((0, *_PAUSES_S), start=1):
            await asyncio.sleep(pause and max(pause, wait_s))
            answered, wait_s = await self._post(address)
            self._books.note_report(name, AppReport(kind, answered, tried))
            if answered is not None and answered < 500 and answered not in _PASSING:
                return
        log.warning("a virtual phone could not report", kind=kind, answered=answered)

    async def _post(self, address: URL) -> tuple[int | None, float]:
        """Return the answer's status, ``None`` if there is none, and for how many seconds it asks to wait."""
        try:
            # A redirect could lead anywhere.
            async with self._session.post(address, allow_redirects=False) as response:
                asked = response.headers.get("Retry-After", "")
                return response.status, min(int(asked), _PATIENCE_S) if asked.isdecimal() and len(asked) < 9 else 0
        except (aiohttp.ClientError, TimeoutError):
            return None, 0


def _notification(push: ReceivedPush) -> UUID | None:
    """Return which notification a push is of; one that is not ours has nothing to report on."""
    try:
        return UUID(push.notification_id or "")
    except ValueError:
        return None


def _call(report: Report, event: ReceiptEvent) -> None:
    try:
        report(event)
    except Exception:
        log.exception("a virtual phone could not report", notification=str(event.notification), kind=event.kind)
