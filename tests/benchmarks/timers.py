"""Pending timers: what a hundred thousand and a million waiting fallbacks cost, and how late they ring.

Against Celery's countdown, which the worker holds in memory.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import meter, textbook
from benchmarks.history import pending
from benchmarks.meter import memory_mb

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

PENDING = (100_000, 1_000_000)
COUNTDOWNS = 50_000
#: How many of them come due while we look, and within how many seconds.
DUE, OVER_S = 10_000, 10


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    for count in PENDING:
        _ours(here, figures, count, last=count == PENDING[-1])
    _countdowns(here, figures)


def _ours(here: Installation, figures: Figures, count: int, *, last: bool) -> None:
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    here.empty_the_broker()
    env = here.environment(database_url, here.provider.url)
    with here.workers("benchmarks.trusting", env=env) as workers:
        (worker,) = workers
        # Connections and templates are made by the first work, not by what waits.
        pending(engine, 1_000, due=timedelta())
        here.wait(lambda: _ended(engine) >= 1_000, workers)
        memory, broker = memory_mb(worker.pid), _broker_mb(here)
        pending(engine, count)
        time.sleep(5)
        more, more_in_broker = memory_mb(worker.pid) - memory, _broker_mb(here) - broker
        with meter.measure(here.roles(workers)) as idle:
            time.sleep(5)
        ids = pending(engine, DUE, due=timedelta(seconds=2), over=timedelta(seconds=OVER_S))
        here.wait(lambda: _ended(engine) >= 1_000 + DUE, workers)
        late = _lateness(engine, ids)
    figures.add(f"{count:,} pending: worker", f"{more:+.1f} MB", "target: 50 MB at most" if last else "")
    figures.add("in the broker", f"{more_in_broker:+.2f} MB", "target: 10 MB at most" if last else "")
    figures.add("CPU while they wait", f"{idle.cpu_s['workers'] / idle.wall_s:.1%}", "of one core, worker")
    remark = f"from due to decided, {DUE:,} in {OVER_S} s" + ("; target: 1 s at most" if last else "")
    figures.add("lateness, 99 of 100", f"{late:.2f} s", remark)
    if last:
        for key, value in (("worker_mb", more), ("broker_mb", more_in_broker), ("late_p99_s", late)):
            figures.add_as(f"timers.{key}", value)


def _countdowns(here: Installation, figures: Figures) -> None:
    here.empty_the_broker()
    textbook.app.conf.broker_url = here.broker_url
    env = here.environment(here.database(), here.provider.url)
    with here.workers("benchmarks.textbook", "--pool", "prefork", "--concurrency", "2", env=env) as workers:
        (worker,) = workers
        memory, broker = memory_mb(worker.pid), _broker_mb(here)
        with textbook.app.connection_for_write() as connection, connection.Producer() as producer:
            for n in range(COUNTDOWNS):
                textbook.check_fallback.apply_async((str(n),), countdown=86_400, producer=producer)
        here.wait(lambda: here.redis.llen("textbook") == 0, workers)
        more, more_in_broker = memory_mb(worker.pid) - memory, _broker_mb(here) - broker
    figures.add(f"{COUNTDOWNS:,} Celery countdowns: worker", f"{more:+.1f} MB", "", countdowns_worker_mb=more)
    figures.add("in the broker", f"{more_in_broker:+.2f} MB", "", countdowns_broker_mb=more_in_broker)


def _broker_mb(here: Installation) -> float:
    return float(here.redis.info("memory")["used_memory"]) / 1e6


def _ended(engine: sa.Engine) -> int:
    query = "SELECT count(*) FROM notifications WHERE finished_at IS NOT NULL"
    with engine.connect() as conn:
        return int(conn.execute(sa.text(query)).scalar_one())


def _lateness(engine: sa.Engine, ids: list[str]) -> float:
    query = """
    SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM l.at - d.due_at))
    FROM decisions l JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = 1
    WHERE l.notification_id = ANY(CAST(:ids AS uuid[]))
    """
    with engine.connect() as conn:
        return float(conn.execute(sa.text(query), {"ids": ids}).scalar_one())
