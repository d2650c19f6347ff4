"""A blast to 600,000 of a million people, and the same again while workers are killed."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import meter, people
from benchmarks.installation import WORKERS
from knocktwice import Client, Push
from knocktwice_worker.blasts import standing

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

PEOPLE = 1_000_000
KILLS = 5
_PUSH = Push("Tea week", "Everything made of leaves is cheaper until Sunday.")
_LIMIT_S = 900


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    start = time.monotonic()
    members = people.fill(engine, PEOPLE)
    made = f"{PEOPLE:,} people made in {time.monotonic() - start:.0f} s"
    here.empty_the_broker()
    env = here.environment(database_url, here.provider.url)
    with here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers, Client(here.broker_url) as client:
        # Connections, credentials and buffers are made by the first pages.
        _fire(client, "warm up", {"and": [people.GOLD, {"field": "tags.orders", "op": "=", "value": 0}]})
        here.wait(lambda: _finished(engine, "warm up"), workers)
        before = [meter.memory_mb(w.pid) for w in workers]
        most = [0.0]
        _fire(client, "measured", people.GOLD)
        with meter.measure(here.roles(workers)) as spent:
            here.wait(
                lambda: _seen(most, before, workers) and _finished(engine, "measured"),
                workers,
                limit_s=_LIMIT_S,
                every_s=1,
            )
        # Twice with one key is once.
        _fire(client, "measured", people.GOLD)
    blast = _blast(engine, "measured")
    taken_s = (blast.expanded_at - blast.started_at).total_seconds()
    sent_s = (blast.finished_at - blast.started_at).total_seconds()
    figures.add(
        "taken from the segment",
        f"{members / taken_s:,.0f} users/s",
        f"{members:,} of {PEOPLE:,}; {made}",
        per_s=members / taken_s,
    )
    figures.add(
        "notified, to the last push",
        f"{members / sent_s:,.0f} users/s",
        spent.shares(members),
        sent_per_s=members / sent_s,
    )
    figures.add(
        "worker memory grew by",
        f"{most[0]:.0f} MB",
        "the worst of all moments and workers; target: 50",
        grown_mb=most[0],
    )
    figures.add(
        "notified exactly once", f"{_once(engine, 'measured'):,}", f"of {members:,}", once=_once(engine, "measured")
    )
    _killed(here, figures, engine, env, members)


def _killed(here: Installation, figures: Figures, engine: sa.Engine, env: dict[str, str], members: int) -> None:
    dice = random.Random(7)
    env = env | {"KNOCKTWICE_LEASE_S": "15", "KNOCKTWICE_PROVIDER_TIMEOUT_S": "7"}
    with Client(here.broker_url) as client:
        _fire(client, "killed", people.GOLD)
    for _ in range(KILLS):
        with here.workers("benchmarks.trusting", env=env, count=1) as workers:
            goal = _progress(engine, "killed") + dice.randrange(members // (2 * KILLS))
            here.wait(
                lambda goal=goal: _progress(engine, "killed") > goal,  # type: ignore[misc]
                workers,
                limit_s=_LIMIT_S,
                every_s=0.3,
            )
            threading.Event().wait(dice.random())
            workers[0].kill()
    with here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers:
        here.wait(lambda: _finished(engine, "killed"), workers, limit_s=_LIMIT_S, every_s=1)
    once = _once(engine, "killed")
    figures.add(f"exactly once, after {KILLS} SIGKILLs", f"{once:,}", f"of {members:,}", once_killed=once)


def _fire(client: Client, key: str, wanted: dict[str, Any]) -> None:
    client.blast(wanted, key=key, push=_PUSH)


def _seen(most: list[float], before: list[float], workers: list[Any]) -> bool:
    most[0] = max(most[0], *(meter.memory_mb(w.pid) - b for w, b in zip(workers, before, strict=True)))
    return True


def _blast(engine: sa.Engine, key: str) -> Any:
    with engine.connect() as conn:
        return standing.find(conn, key)


def _finished(engine: sa.Engine, key: str) -> bool:
    blast = _blast(engine, key)
    return blast is not None and blast.state == "finished"


def _progress(engine: sa.Engine, key: str) -> int:
    """People taken and people notified, so that kills come during either."""
    blast = _blast(engine, key)
    return 0 if blast is None else int(blast.total + blast.sent)


def _once(engine: sa.Engine, key: str) -> int:
    """How many of the segment have exactly one notification of the blast."""
    query = """
    SELECT count(*) FROM (
      SELECT n.user_id FROM blasts b JOIN blast_pages p ON p.blast_id = b.id JOIN notifications n ON n.batch_id = p.id
      WHERE b.key = :key GROUP BY n.user_id HAVING count(*) = 1
    ) once JOIN users u ON u.id = once.user_id AND u.tags ->> 'plan' = 'gold'
    """
    with engine.connect() as conn:
        return int(conn.execute(sa.text(query), {"key": key}).scalar_one())
