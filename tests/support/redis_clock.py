"""The clock of Redis, moved: what our keys say about time is put back by as much, which looks the same to every script.

Redis has no function to replace, as PostgreSQL has, and a script that asked for an offset would do so in production,
too. So nothing of ours knows of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_ACCEPTED

if TYPE_CHECKING:
    from datetime import timedelta

    from redis import Redis

#: The beginning of a key's name → fields of its hash that hold epoch seconds.
_TIMES = {
    "knocktwice:pace:": ("next", "pause", "cut_at", "singles", "blasts"),
    "knocktwice:{providers}:": ("down", "until", "probing"),
}
#: Seconds of a slice in which a provider's successes and errors are counted; fields end in the slice's number.
_SLICE_S = 10


class RedisClock:
    """Moves one keyspace through time."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def advance(self, by: timedelta) -> None:
        """Let time go by: keys whose time is over are gone, and the others have as much less left."""
        redis, seconds = self._redis, by.total_seconds()
        for key in redis.keys("*"):
            left: Any = redis.pttl(key)
            if 0 < left <= seconds * 1000:
                redis.delete(key)
                continue
            if left > 0:
                redis.pexpire(key, left - int(seconds * 1000))
            for beginning, fields in _TIMES.items():
                if _text(key).startswith(beginning):
                    self._put_back(_text(key), fields, seconds)
        accepted: Any = redis.zrange(INBOX_ACCEPTED, 0, -1)
        for id_ in accepted:
            redis.zincrby(INBOX_ACCEPTED, -seconds, id_)

    def _put_back(self, name: str, fields: tuple[str, ...], seconds: float) -> None:
        found: Any = self._redis.hgetall(name)
        row = {_text(field): _text(value) for field, value in found.items()}
        for field in fields:
            if field in row:
                self._redis.hset(name, field, repr(float(row[field]) - seconds))
        slices = [field for field in row if ":" in field]
        if slices:
            assert seconds % _SLICE_S == 0
            self._redis.hdel(name, *slices)
            for field in slices:
                kind, _, number = field.partition(":")
                self._redis.hset(name, f"{kind}:{int(number) - int(seconds) // _SLICE_S}", row[field])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
