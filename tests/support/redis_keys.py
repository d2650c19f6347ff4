"""Which keys Redis may keep for ever: what waits to be done. Every other key of ours has an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_BACKLOG, INBOX_FAILURES, INBOX_MESSAGES, INBOX_SUBJECTS, Queue

if TYPE_CHECKING:
    from redis import Redis

#: What was accepted, until it is done, and how much that is; the queues; and which server counts, one row for all time.
KEPT = {
    INBOX_ACCEPTED,
    INBOX_BACKLOG,
    INBOX_FAILURES,
    INBOX_MESSAGES,
    INBOX_SUBJECTS,
    *Queue,
    "{knocktwice:sms}:complete",
}
#: Celery's and kombu's own begin like this, or are theirs by name.
_OURS = ("knocktwice", "{knocktwice")


def ours(redis: Redis) -> dict[str, int]:
    """Return name → seconds that are left, of each key of ours that may not be kept for ever; -1: it has no end."""
    found: Any = redis.keys("*")
    left: dict[str, Any] = {name: redis.ttl(name) for name in sorted({key.decode() for key in found} - KEPT)}
    return {name: int(seconds) for name, seconds in left.items() if name.startswith(_OURS)}


def without_end(redis: Redis) -> list[str]:
    """Return the keys that would be kept for ever and should not be."""
    return [name for name, left in ours(redis).items() if left == -1]
