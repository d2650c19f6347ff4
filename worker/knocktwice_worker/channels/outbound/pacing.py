"""Pacing: token buckets in Redis, shared by all workers, keep messages below the speed that a provider accepts.

FCM counts messages per project, mobile operators count SMS parts per sender. If a bucket is empty, the message stays a
row that will be due again, so a click can still end it and no thread is blocked. The message joins a queue and learns
when its turn comes, so the full pace is used, whatever the length of the queue. Blasts and single messages have one
queue each and share the pace; critical messages never queue. A provider's 429 halves the rate, which then recovers by
itself. Without Redis there is no pacing; the providers' own limits apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

log = structlog.get_logger(__name__)

#: After a pause, the units of this many seconds may go at once.
BURST_S = 1.0
#: The pause after a 429 that names no time.
_PAUSE = timedelta(seconds=1)
SCRIPT = resources.files(__package__).joinpath("pacing.lua").read_text()


class Lane(StrEnum):
    """The queue that a message waits in."""

    #: No queue: if there is no room, the message does not wait here. Critical messages use it to overtake the queues.
    NONE = "none"
    #: The queue of single messages, for which a person waits.
    SINGLES = "singles"
    #: The queue of messages to many people.
    BLASTS = "blasts"


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer of a bucket.

    Attributes:
        granted: the number of messages that may go now, counted from the first.
        waits: the wait of each other message until its turn; it asks again then.
    """

    granted: int
    waits: tuple[timedelta, ...] = ()


class Pace:
    """One token bucket.

    Args:
        redis: keeps the bucket.
        name: the name of the bucket, for example ``fcm:my-project``.
        per_s: units per second; 0 switches pacing off.
        burst_s: after a pause, the units of this many seconds may go at once.
        script: the bucket's own; another one has another clock.
    """

    def __init__(
        self, redis: Redis, *, name: str, per_s: float, burst_s: float = BURST_S, script: str = SCRIPT
    ) -> None:
        self._key = f"knocktwice:pace:{name}"
        self._per_s = per_s
        self._burst_s = burst_s
        self._redis = redis
        self._script = redis.register_script(script)

    def take(self, costs: Sequence[int], lane: Lane = Lane.SINGLES, *, entitled: int = 0) -> Turn:
        """Ask the bucket whether messages may go now, in their order.

        Args:
            costs: the units that each message costs.
            lane: the queue that they wait in.
            entitled: how many of the first messages have waited already; they go before those that join the queue now.
        """
        if not self._per_s or not costs:
            return Turn(len(costs))
        try:
            args: list[str | float] = [self._per_s, self._burst_s, "take", str(lane), entitled, *costs]
            granted, *waits = self._script(keys=[self._key], args=args)
        except RedisError as error:
            log.warning("not paced", error=type(error).__name__)
            return Turn(len(costs))
        return Turn(int(granted), tuple(timedelta(seconds=float(wait)) for wait in waits))

    def slow_down(self, pause: timedelta | None) -> None:
        """Note that the provider asked for a slower pace, and for how long."""
        if not self._per_s:
            return
        seconds = (pause or _PAUSE).total_seconds()
        try:
            self._script(keys=[self._key], args=[self._per_s, self._burst_s, "slow", seconds])
        except RedisError as error:
            log.warning("not slowed down", error=type(error).__name__)

    def paused_until(self) -> datetime | None:
        """Return until when nothing goes because the provider asked for patience; ``None``: it does not wait.

        Raises:
            RedisError: Redis cannot be asked.
        """
        pause = self._redis.hget(self._key, "pause")
        until = datetime.fromtimestamp(float(pause or 0), UTC)
        return until if until > datetime.now(UTC) else None
