"""Not faster than a provider wants it: token buckets in Redis, shared by all workers.

FCM counts messages per project, carriers count SMS parts per sender. What a bucket has no room for is not waited for: it
stays a row that rings again, so a click can still cancel it and no thread is blocked. A provider's 429 halves the rate,
which recovers by itself. Without Redis there is no pacing; the providers' own limits hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

log = structlog.get_logger(__name__)

#: This many seconds' worth may go at once after a pause.
_BURST_S = 1.0
#: How long nothing goes after a 429 that names no time.
_PAUSE = timedelta(seconds=1)
_SCRIPT = resources.files(__package__).joinpath("pacing.lua").read_text()


@dataclass(frozen=True, slots=True)
class Turn:
    """What may go now: the first ``granted`` messages. The others may ask again after ``wait``."""

    granted: int
    wait: timedelta


class Pace:
    """One provider's bucket.

    Args:
        redis: where the bucket is.
        name: whose bucket, for example ``fcm:my-project``.
        per_s: units per second; 0 switches pacing off.
    """

    def __init__(self, redis: Redis, *, name: str, per_s: float) -> None:
        self._key = f"knocktwice:pace:{name}"
        self._per_s = per_s
        self._script = redis.register_script(_SCRIPT)

    def take(self, costs: Sequence[int]) -> Turn:
        """Ask for a turn for messages that cost so many units each, in their order."""
        if not self._per_s or not costs:
            return Turn(len(costs), timedelta())
        try:
            granted, wait = self._script(keys=[self._key], args=[self._per_s, _BURST_S, "take", *costs])
        except RedisError as error:
            log.warning("not paced", error=type(error).__name__)
            return Turn(len(costs), timedelta())
        # Those that are left take turns, too; all at once they would only find the bucket empty again.
        left = sum(costs[granted:])
        return Turn(int(granted), timedelta(seconds=float(wait) + left / self._per_s / 2))

    def slow_down(self, pause: timedelta | None) -> None:
        """Note that the provider asked for patience, and for how long."""
        if not self._per_s:
            return
        seconds = (pause or _PAUSE).total_seconds()
        try:
            self._script(keys=[self._key], args=[self._per_s, _BURST_S, "slow", seconds])
        except RedisError as error:
            log.warning("not slowed down", error=type(error).__name__)
