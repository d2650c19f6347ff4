"""Many callers at the same moment, for tests of what may be counted only once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from knocktwice_worker.embedded import installation
from knocktwice_worker.limits.per_number import RedisLimits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from knocktwice_worker.limits.asks import Answer, Ask, Limits

CALLERS = 64


def count_together(
    valkey_url: str, engine: sa.Engine, limits: Limits, asks: Sequence[Ask], now: datetime
) -> list[Answer]:
    """Let 64 callers count at once, one message each, through connections of their own."""
    everybody_ready = threading.Barrier(CALLERS)
    local = threading.local()

    def start() -> None:
        local.limits = RedisLimits(installation.connect_redis(valkey_url), limits)
        everybody_ready.wait()

    def count(one: Ask) -> Answer:
        with engine.connect() as conn:
            answer: Answer = local.limits.count(conn, [one], now)[0]
            return answer

    with ThreadPoolExecutor(CALLERS, initializer=start) as pool:
        return list(pool.map(count, asks))
