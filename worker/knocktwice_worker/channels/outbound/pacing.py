"""Not faster than a provider wants it: token buckets in Redis, shared by all workers.

FCM counts messages per project, carriers count SMS parts per sender. A message for which a bucket has no room stays a row that
rings again, so a click can still cancel it and no thread is blocked. It joins a line, and is told when its turn will come: so
the pace is used, however many wait. Blasts and single messages have a line each and share the pace; critical messages wait in
none. A provider's 429 halves the rate, which recovers by itself. Without Redis there is no pacing; the providers' own limits
hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
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


class Lane(StrEnum):
    """Who waits with whom."""

    #: With nobody: what there is no room for does not wait in a line, and critical messages overtake those that do.
    NONE = "none"
    #: Messages that somebody waits for.
    SINGLES = "singles"
    #: Messages to many.
    BLASTS = "blasts"


@dataclass(frozen=True, slots=True)
class Turn:
    """What may go now.

    Attributes:
        granted: how many of the first messages.
        waits: for each of the others, how long until its turn; it asks again then.
    """

    granted: int
    waits: tuple[timedelta, ...] = ()


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

    def take(self, costs: Sequence[int], lane: Lane = Lane.SINGLES, *, entitled: int = 0) -> Turn:
        """Ask for a turn for messages, or anything else, that cost so many units each, in their order.

        Args:
            costs: units of each message.
            lane: with whom they wait.
            entitled: how many of the first have waited already, and go before those that join the line now.
        """
        if not self._per_s or not costs:
            return Turn(len(costs))
        try:
            args: list[str | float] = [self._per_s, _BURST_S, "take", str(lane), entitled, *costs]
            granted, *waits = self._script(keys=[self._key], args=args)
        except RedisError as error:
            log.warning("not paced", error=type(error).__name__)
            return Turn(len(costs))
        return Turn(int(granted), tuple(timedelta(seconds=float(wait)) for wait in waits))

    def slow_down(self, pause: timedelta | None) -> None:
        """Note that the provider asked for patience, and for how long."""
        if not self._per_s:
            return
        seconds = (pause or _PAUSE).total_seconds()
        try:
            self._script(keys=[self._key], args=[self._per_s, _BURST_S, "slow", seconds])
        except RedisError as error:
            log.warning("not slowed down", error=type(error).__name__)
