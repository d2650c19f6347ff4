"""Receipts: from the application's call to the row, ending the fallback they answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa

from benchmarks import meter
from benchmarks.figures import median, spread
from benchmarks.history import pending
from benchmarks.installation import WORKERS
from knocktwice import Client, ReceiptEvent
from knocktwice_shared.messages import Receipt
from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, COUNT = 3, 20_000


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    here.empty_the_broker()
    rates, cpus, shares, spent = [], [], "", meter.Spent()
    env = here.environment(database_url, here.provider.url)
    with here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers, Client(here.broker_url) as client:
        for done in range(ROUNDS):
            ids = pending(engine, COUNT)
            events = [ReceiptEvent(UUID(i), Receipt.DELIVERED, datetime.now(UTC)) for i in ids]
            with meter.measure(here.roles(workers)) as spent:
                start = time.perf_counter()
                client.record_receipts(events)
                # A message leaves the inbox when its rows are committed. Counting rows again and again would cost some.
                here.wait(lambda: here.redis.hlen(INBOX_MESSAGES) == 0, workers)
                rates.append(COUNT / (time.perf_counter() - start))
            if _reached(engine) != (done + 1) * COUNT:
                raise RuntimeError("not every receipt has ended its fallback")
            cpus.append(spent.cpu_us("workers", COUNT))
            shares = spent.shares(COUNT)
    rate = median(rates)
    figures.add_rate("receipts that end a fallback", rate, spent, COUNT, spread(rates), per_s=rate)
    figures.add("worker CPU each", f"{median(cpus):,.0f} µs", shares, cpu_us=median(cpus))


def _reached(engine: sa.Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(sa.text("SELECT count(*) FROM notifications WHERE state = 'reached'")).scalar_one())
