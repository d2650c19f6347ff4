"""Paces by the simulation's clock: the workers' script, which gets the time instead of asking Redis for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.pacing import BURST_S, SCRIPT, Pace

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from redis import Redis

#: Where the time is told, in seconds.
_NOW = "knocktwice:simulated_now"
_ASKS = "redis.call('TIME')"
_SCRIPT = SCRIPT.replace(_ASKS, f"{{redis.call('GET', '{_NOW}'), 0}}")


def tell(redis: Redis, now: datetime) -> None:
    """Tell all paces the time."""
    redis.set(_NOW, now.timestamp())


def pace(redis: Redis, *, name: str, per_s: float, step: timedelta) -> Pace:
    """Return a pace of workers that look once in a ``step``, and find what could have gone meanwhile."""
    return Pace(redis, name=name, per_s=per_s, burst_s=max(BURST_S, step.total_seconds()), script=_SCRIPT)
