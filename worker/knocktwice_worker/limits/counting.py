"""Counts messages against the limits of their numbers: in Redis, and while Redis is down in Postgres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.messages import Category
from knocktwice_worker.lifecycle import Delay
from knocktwice_worker.limits.asks import Answer, Ask
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.limits.per_number import LimitsUnavailable, RedisLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from knocktwice_worker.limits.asks import Limits

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Counts messages in Redis, or in Postgres while Redis is down.

    Attributes:
        redis: the counters in Redis, with the configured limits.
    """

    redis: RedisLimits

    @property
    def limits(self) -> Limits:
        """The configured limits."""
        return self.redis.limits

    @property
    def secret(self) -> bytes:
        """Key of the HMAC over numbers."""
        return self.redis.limits.secret

    def count(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        """Count messages against their numbers. Without Redis, Postgres counts for all but marketing, which waits.

        Args:
            conn: the transaction that writes the reservations.
            asks: one per message, oldest first.
            now: the database's clock.

        Returns:
            One answer per ask, in the same order.
        """
        try:
            return self.redis.count(conn, asks, now)
        except LimitsUnavailable:
            log.warning("limits counted in postgres", messages=len(asks))
        urgent = [ask for ask in asks if ask.category is not Category.MARKETING]
        counted = dict(zip(urgent, count_in_postgres(conn, urgent, self.redis.limits, now), strict=True))
        return [counted.get(ask, Answer(Delay.LIMITS_UNAVAILABLE, 0)) for ask in asks]

    def release(self, asks: Sequence[Ask], now: datetime) -> None:
        """Give counts back. A failure only makes the limits stricter, so it is logged and stops nothing."""
        for counters, own in self._counters(asks):
            try:
                counters.release(own, now)
            except RedisError:
                log.warning("counts not released", messages=len(own))

    def _counters(self, asks: Sequence[Ask]) -> Iterable[tuple[RedisLimits, Sequence[Ask]]]:
        """Yield the counters of these messages' numbers, each with its own messages."""
        if asks:
            yield self.redis, asks
