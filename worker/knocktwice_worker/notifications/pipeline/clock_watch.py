"""Notices that the database's clock went back, and wakes what fell asleep while it was ahead.

The latest time that any worker has seen is kept in Redis. If the clock shows less, it had jumped ahead. So the rows are
searched only then, and not by every look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import clock_jumps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from sqlalchemy import Connection, Engine

log = structlog.get_logger(__name__)

#: Where the latest time is kept, in epoch seconds.
LATEST = "knocktwice:clock"
#: How long it is kept while no worker runs.
_KEPT = timedelta(days=30)

# Returns the latest time seen, and keeps the one seen now if it is later.
_SEE = """
local latest = redis.call('GET', KEYS[1])
if not latest or tonumber(ARGV[1]) > tonumber(latest) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
return latest
"""


@dataclass(frozen=True, kw_only=True)
class ClockWatch:
    """Compares the clock with the latest time seen.

    Attributes:
        engine: for short transactions.
        redis: keeps the latest time.
        others: functions that wake the rows of other rooms. Each gets the span by which a row may sleep too long, and
            returns how many it woke.
    """

    engine: Engine
    redis: Redis
    others: Sequence[Callable[[Connection, timedelta], int]] = ()

    def look(self) -> int:
        """Wake what sleeps for too long, if the clock went back since the last look; return how many rows."""
        with self.engine.begin() as conn:
            now = store.now(conn).timestamp()
        kept = int(_KEPT.total_seconds())
        latest = self.redis.eval(_SEE, 1, LATEST, f"{now:.3f}", kept)
        if latest is None or float(latest) - now <= clock_jumps.TOLERANCE.total_seconds():
            return 0
        woken = clock_jumps.wake(self.engine)
        for other in self.others:
            with self.engine.begin() as conn:
                woken += other(conn, clock_jumps.TOLERANCE)
        # Only now: if this worker dies before, another one finds the jump.
        self.redis.set(LATEST, f"{now:.3f}", ex=kept)
        log.warning("the database's clock went back", by_s=round(float(latest) - now), woken=woken)
        return woken
