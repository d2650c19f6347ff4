"""The age of the oldest accepted message that no worker has committed: the low-water mark of acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import UUID

from knocktwice_shared.names import INBOX_ACCEPTED

if TYPE_CHECKING:
    from redis import Redis

#: Messages at the old end that are looked at.
_LOOKED_AT = 100


def oldest_s(redis: Redis) -> float:
    """Return the age in seconds; 0 if nothing waits.

    The sweep gives a message that it publishes again the time of that, and one that no queue has had yet may be scored
    with 0. So the ids of those at the old end count, too: they begin with the time at which they were made.
    """
    pipe = redis.pipeline(transaction=False)
    pipe.time()
    pipe.zrange(INBOX_ACCEPTED, 0, _LOOKED_AT - 1, withscores=True)
    (seconds, micros), found = pipe.execute()
    now: float = seconds + micros / 1e6
    listed = cast("list[tuple[bytes, float]]", found)
    times = [at for id_, score in listed for at in (score, _made_at(id_)) if at]
    oldest: float = min(times, default=now)
    return max(0.0, now - oldest)


def _made_at(id_: bytes) -> float | None:
    try:
        uuid = UUID(id_.decode())
    except ValueError:
        return None
    return (uuid.int >> 80) / 1000 if uuid.version == 7 else None
