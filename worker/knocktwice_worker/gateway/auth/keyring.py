"""The keys that work, in memory: no request waits for the database, and no stranger can make it work.

All of them are read at once, every few seconds, so that a revoked key ends within that time and a forged one costs
nothing. When the database is away, those read last go on for a while: what is accepted needs the broker only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.problems import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.gateway.auth.keys import Key
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: A revoked key is refused after this long at the latest.
FRESH = timedelta(seconds=2)
#: How long known keys keep working while the database cannot be read.
STALE = timedelta(minutes=5)
#: Seconds between two looks at the least.
_PAUSE_S = 0.05
#: Digests that are remembered; forged keys with an id that works take places, too.
_REMEMBERED = 1_000
#: The digest that is compared for an id without a key; no key has it.
_NOBODYS = bytes(32)
#: The time between two notes of the keys' use.
NOTED = timedelta(seconds=30)


class KeyRing:
    """Looks keys up.

    Args:
        services: where they are stored.
        clock: seconds that never go backwards.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._secret = secret(services.settings)
        self._clock = clock
        self._working: dict[str, Key] = {}
        self._read_at = self._tried_at = self._noted_at = float("-inf")
        self._used: set[str] = set()
        self._digests: dict[bytes, bytes] = {}
        self._reading = asyncio.Lock()
        # Not one of those that requests share: however slow those are, a key is found.
        self._thread = ThreadPoolExecutor(1, "keys")

    async def find(self, given: str) -> Key | None:
        """Return the stored key that somebody gave, or ``None`` if it does not work.

        Raises:
            Problem: the keys cannot be read.
        """
        id_ = keys.id_of(given)
        if id_ is None:
            return None
        return await self.find_proved(id_, lambda digest: hmac.compare_digest(digest, self._digest(given)))

    async def find_proved(self, id_: str, proved: Callable[[bytes], bool]) -> Key | None:
        """Return the stored key of this id, or ``None`` if none works or the caller does not have it.

        Args:
            proved: whether a caller has the key of this digest. An id that nobody has is asked about like one that
                works, so the time of a refusal does not tell which ids exist.

        Raises:
            Problem: the keys cannot be read.
        """
        await self._refresh(older_than=FRESH)
        key = self._match(id_, proved)
        if key is None:
            # It may have been made a moment ago.
            await self._refresh(older_than=timedelta())
            key = self._match(id_, proved)
        if key is not None:
            self._used.add(key.id)
        return key

    async def close(self) -> None:
        """Note what was used last."""
        self._noted_at = float("-inf")
        if self._used:
            try:
                await self._read_aside()
            except SQLAlchemyError as error:
                log.warning("the use of keys was not noted", error=type(error).__name__)
        self._thread.shutdown()

    def _match(self, id_: str, proved: Callable[[bytes], bool]) -> Key | None:
        key = self._working.get(id_)
        is_it = proved(_NOBODYS if key is None else key.digest)
        return key if is_it else None

    def _digest(self, given: str) -> bytes:
        """Return a key's digest.

        Those of the keys in use are remembered: an HMAC lets go of the interpreter's lock, and under load it takes long
        to get it back.
        """
        mark = hashlib.sha256(given.encode()).digest()
        found = self._digests.get(mark)
        if found is None:
            found = keys.digest(given, self._secret)
            if len(self._digests) >= _REMEMBERED:
                self._digests.clear()
            self._digests[mark] = found
        return found

    async def _refresh(self, *, older_than: timedelta) -> None:
        """Read the keys anew if they were read longer ago than that; many requests share one look."""
        asked = self._clock()
        if asked - self._read_at < older_than.total_seconds():
            return
        async with self._reading:
            if self._read_at > asked - older_than.total_seconds():
                return
            # However many forged keys come, the database is asked so often and no more.
            await asyncio.sleep(max(0.0, _PAUSE_S - (self._clock() - self._tried_at)))
            started = self._tried_at = self._clock()
            try:
                self._working = await self._read_aside()
                self._read_at = started
            except SQLAlchemyError as error:
                if self._clock() - self._read_at > STALE.total_seconds():
                    raise unavailable("the keys cannot be read; try again") from error
                log.warning("keys could not be read anew", error=type(error).__name__)

    async def _read_aside(self) -> dict[str, Key]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    def _read(self) -> dict[str, Key]:
        now, used = self._clock(), []
        if now - self._noted_at >= NOTED.total_seconds():
            used, self._used = sorted(self._used), set()
        with self._services.engine.begin() as conn:
            if used:
                keys.note_used(conn, used)
            working = keys.working(conn)
        self._noted_at = now if used else self._noted_at
        return working
