"""The limits script: how many SMS per second one Redis can count, in batches of 500."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from benchmarks import meter
from benchmarks.figures import median, spread
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.limits.asks import Ask, Limits
from knocktwice_worker.limits.per_number import RedisLimits

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, BATCHES = 5, 40


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    limits = RedisLimits(
        here.redis, Limits(per_day=10, same_content=timedelta(seconds=30), zone=ZoneInfo("UTC"), secret=b"benchmark")
    )
    here.empty_the_broker()
    count, rates, server = BATCHES * BATCH_LIMIT, [], []
    with sa.create_engine(here.database(), poolclass=sa.NullPool).connect() as conn:
        for _ in range(ROUNDS):
            batches = [
                [Ask(str(uuid7()), f"+1{6_502_000_000 + n}", uuid7().bytes) for n in range(i, i + BATCH_LIMIT)]
                for i in range(0, count, BATCH_LIMIT)
            ]
            with meter.measure(here.roles([])) as spent:
                start = time.perf_counter()
                for batch in batches:
                    assert all(answer.refusal is None for answer in limits.count(conn, batch, datetime.now(UTC)))
                rates.append(count / (time.perf_counter() - start))
            server.append(spent.cpu_us("valkey", count))
    rate = median(rates)
    remark = f"{spread(rates)}; {median(server):.1f} µs of Valkey's CPU each"
    figures.add("SMS counted", f"{rate:,.0f}/s", remark, per_s=rate)
