"""The same run with nothing and with millions of old notifications in the tables."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import quick
from benchmarks.figures import median
from benchmarks.history import past
from benchmarks.runs import ours
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.database.schema.notifications import deliveries, notifications
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.reporting import rollups

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.runs import Result

ROUNDS, COUNT = quick.of(1, 3), quick.of(10_000, 20_000)
OLD = int(os.environ.get("ROWS") or quick.of(200_000, 5_000_000))
#: Made in one transaction, a day older than those made next.
AT_ONCE = min(OLD, 1_000_000)


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures. The two databases take turns, so that both see the machine in the same moods."""
    empty, full = here.database(), here.database()
    start = time.monotonic()
    _fill(full)
    filled = f"made in {time.monotonic() - start:.0f} s, {_size(full) / 1e9:.0f} GB"
    results: dict[str, list[Result]] = {empty: [], full: []}
    for _ in range(ROUNDS):
        for database_url, into in results.items():
            into += ours(
                here, url=here.provider.url, count=COUNT, rounds=1, portion=BATCH_LIMIT, database_url=database_url
            )
    costs = {url: median(_cost(r) for r in runs) for url, runs in results.items()}
    ratio = costs[full] / costs[empty]
    figures.add("no old notifications", f"{costs[empty]:,.0f} µs", _shares(results[empty][-1]))
    figures.add(f"{OLD:,} old ones", f"{costs[full]:,.0f} µs", f"{_shares(results[full][-1])}; {filled}")
    figures.add("CPU of all, against empty", f"{ratio:.2f} times", "target: 1.10 times at most", ratio=ratio)


def _fill_pages_to(engine: sa.Engine, percent: int | None) -> None:
    with engine.begin() as conn:
        for table in (notifications, deliveries):
            own = table.dialect_kwargs["postgresql_with"]["fillfactor"]
            conn.execute(sa.text(f"ALTER TABLE {table.name} SET (fillfactor = {percent or own})"))


def _cost(result: Result) -> float:
    return sum(result.spent.cpu_us(role, result.count) for role in ("workers", "postgres", "valkey"))


def _shares(result: Result) -> str:
    return f"{result.spent.shares(COUNT)}; {result.written.wal_bytes / COUNT:,.0f} bytes of WAL"


def _size(database_url: str) -> int:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as conn:
        return int(conn.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())


def _fill(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        # Old notifications have been counted long ago.
        change_feed.join(conn, rollups.FOLLOWER, datetime.now(UTC))
    # In production a row grows on its page while it is worked on. Old rows that are made as they end would leave room
    # for one new row on each page, and new rows would go there: their pages are filled further.
    _fill_pages_to(engine, 60)
    for days in range(OLD // AT_ONCE, 0, -1):
        past(engine, AT_ONCE, timedelta(days=days))
    _fill_pages_to(engine, None)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE"))
        conn.execute(sa.text("CHECKPOINT"))
