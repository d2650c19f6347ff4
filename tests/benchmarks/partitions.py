"""The cost of daily partitions: the same run with plain tables, and with one partition a day for each large table.

The partition key is the notification's id, which begins with its time (UUIDv7) and is in every primary key.
``notifications`` stays as it is: the unique index on keys cannot span partitions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

import sqlalchemy as sa

from benchmarks import quick
from benchmarks.figures import median
from benchmarks.runs import ours
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.runs import Result

ROUNDS, COUNT = quick.of(2, 3), quick.of(10_000, 20_000)
#: Days of history, today and tomorrow included.
DAYS = quick.of((10, 40), (1, 10, 40))
#: The tables whose rows belong to a notification.
TABLES = ("deliveries", "attempts", "events", "decisions")

#: The storage of a table, as its partitions name it, and what makes its indexes.
_MADE_OF = sa.text("""
SELECT
  ' WITH (' || array_to_string(t.reloptions, ', ') || ')' AS storage,
  array_agg(pg_get_indexdef(i.indexrelid)) AS indexes
FROM pg_class t JOIN pg_index i ON i.indrelid = t.oid
WHERE t.oid = CAST(:table AS regclass)
GROUP BY t.reloptions
""")


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures. The databases take turns, so that all see the machine in the same moods."""
    plain = here.database()
    databases = {
        plain: "no partitions",
        **{_by_day(here.database(), days): f"{days} daily partitions" for days in DAYS},
    }
    results: dict[str, list[Result]] = {url: [] for url in databases}
    for _ in range(ROUNDS):
        for url, into in results.items():
            into += ours(here, url=here.provider.url, count=COUNT, rounds=1, portion=BATCH_LIMIT, database_url=url)
    costs = {url: median(_postgres_us(result) for result in runs) for url, runs in results.items()}
    for url, name in databases.items():
        every = median(result.all_us for result in results[url])
        note = f"{costs[url] / costs[plain]:.2f} times; {every:,.0f} µs of all processes"
        figures.add(f"{name}: CPU of PostgreSQL", f"{costs[url]:,.0f} µs", note)


def _postgres_us(result: Result) -> float:
    return result.spent.cpu_us("postgres", result.count)


def _by_day(database_url: str, days: int) -> str:
    """Put partitions in the place of the tables, and return the URL."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [today + timedelta(days=n + 2 - days) for n in range(days + 1)]
    with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as conn:
        for table in TABLES:
            storage, indexes = conn.execute(_MADE_OF, {"table": table}).one()
            conn.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_plain")
            conn.exec_driver_sql(
                f"CREATE TABLE {table} (LIKE {table}_plain INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (notification_id)"
            )
            for index in indexes:
                conn.exec_driver_sql(_anew(index))
            for n, (start, end) in enumerate(pairwise(starts)):
                bounds = f"FOR VALUES FROM ('{_first_id(start)}') TO ('{_first_id(end)}')"
                conn.exec_driver_sql(f"CREATE TABLE {table}_{n} PARTITION OF {table} {bounds}" + (storage or ""))
    return database_url


def _first_id(at: datetime) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80)


def _anew(index: str) -> str:
    """Return the statement that makes an index of a plain table for the partitioned one, under another name."""
    unique = "UNIQUE " if "(notification_id" in index else ""
    return f"CREATE {unique}INDEX ON {index.partition(' ON ')[2]}"
