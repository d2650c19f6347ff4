"""Which keys Redis may keep for ever: what waits to be done. Every other key of ours has an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import Queue

if TYPE_CHECKING:
    from redis import Redis

#: The queues, and which server counts, one row for all time.
_KEPT = {*Queue, "{knocktwice:sms}:complete"}
#: What was accepted, until it is done, and what is noted about it.
_INBOX = "knocktwice:inbox:"
#: Others than these are Celery's and kombu's.
_OURS = ("knocktwice", "{knocktwice")


def ours(redis: Redis) -> dict[str, int]:
    """Return name → seconds that are left, of each key of ours that may not be kept for ever; -1: it has no end."""
    found: Any = redis.keys("*")
    names = {key.decode() for key in found} - _KEPT
    ours = sorted(name for name in names if name.startswith(_OURS) and not name.startswith(_INBOX))
    left: dict[str, Any] = {name: redis.ttl(name) for name in ours}
    return {name: int(seconds) for name, seconds in left.items()}


def without_end(redis: Redis) -> list[str]:
    """Return the keys that would be kept for ever and should not be."""
    return [name for name, left in ours(redis).items() if left == -1]
