"""The phones behind the provider: they show pushes and report them, and are told of SMS.

A push carries in its data what its phone is to do, under ``act``: after how many seconds it reports what, and by which
way.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import aiohttp

from knocktwice import BrokerUnavailable, Client, Receipt, ReceiptEvent
from oracle import records
from oracle.records import Told

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from oracle.records import Book

#: A phone that gets no answer asks again so often, after so long (seconds); each try takes at most so long.
_TRIES, _PAUSE_S, _PATIENCE_S = 8, 0.7, 3


def act(*, delivered: float | None = None, clicked: float | None = None, by_http: bool = True) -> dict[str, str]:
    """Return data for a push that say what its phone does: seconds after its arrival, and over which way it reports."""
    return {"act": json.dumps({"delivered": delivered, "clicked": clicked, "http": by_http})}


class Phones:
    """All phones.

    Args:
        log: where they note what they were told.
        broker_url: for what a backend reports over the library.
        durability: how safely it wants that kept.
    """

    def __init__(self, log: Book, broker_url: str | None, durability: str = "disk") -> None:
        self._log = log
        self._client = None if broker_url is None else Client(broker_url, timeout=_PATIENCE_S, durability=durability)
        self._shown: set[tuple[str, str]] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Get ready; in the event loop that they live in."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE_S))

    async def close(self) -> None:
        """Switch them off."""
        for task in self._busy:
            task.cancel()
        await self._http.close()

    def show(self, registration: str, data: Mapping[str, str], token: str) -> None:
        """Let a push arrive; a repeat of one that is on the screen already changes nothing."""
        id_ = data.get("knocktwice_id", "")
        if "act" not in data or (registration, id_) in self._shown:
            return
        self._shown.add((registration, id_))
        plan = json.loads(data["act"])
        url = data.get("knocktwice_receipt") if plan["http"] else None
        for kind in ("delivered", "clicked"):
            if plan[kind] is not None:
                self._begin(self._report(plan[kind], kind, registration, id_, token, url))

    def call_back(self, url: str, form: Mapping[str, str], headers: Mapping[str, str], delay_s: float) -> None:
        """Tell the system later what became of an SMS; as Twilio, at most twice."""
        self._begin(self._call_back(url, form, headers, delay_s))

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _report(
        self, delay_s: float, kind: str, registration: str, id_: str, token: str, url: str | None
    ) -> None:
        await asyncio.sleep(delay_s)
        for _ in range(_TRIES):
            asked_at = time.time()
            told = await (self._by_library(id_, kind) if url is None else self._by_http(f"{url}/{kind}"))
            self._log.write(records.Receipt(asked_at, time.time(), told, id_, token, kind, registration))
            if told is not Told.UNKNOWN:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _by_http(self, url: str) -> Told:
        try:
            async with self._http.post(url) as answer:
                return told(answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return Told.UNKNOWN

    async def _by_library(self, id_: str, kind: str) -> Told:
        event = ReceiptEvent(UUID(id_), Receipt(kind), datetime.now(UTC))
        if self._client is None:
            return Told.UNKNOWN
        try:
            await asyncio.to_thread(self._client.record_receipts, [event])
        except BrokerUnavailable:
            return Told.UNKNOWN
        return Told.ACCEPTED

    async def _call_back(self, url: str, form: Mapping[str, str], headers: Mapping[str, str], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        for _ in range(2):
            try:
                async with self._http.post(url, data=form, headers=headers) as answer:
                    if answer.status < 500:
                        return
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_S)


def told(status: int) -> Told:
    """Return what an HTTP status says; a gateway that is overloaded has not refused for good."""
    if 200 <= status < 300:
        return Told.ACCEPTED
    return Told.UNKNOWN if status >= 500 or status in (408, 429) else Told.REFUSED
