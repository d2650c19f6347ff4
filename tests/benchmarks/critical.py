"""Critical single messages while a blast to 600,000 people runs: how long each takes from the call to the provider."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import people
from knocktwice import Client, Push

if TYPE_CHECKING:
    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from knocktwice_worker.embedded.children import Child

PEOPLE = 1_000_000
#: Critical messages, and the seconds between two of them.
COUNT, EVERY_S = 600, 0.05
_BLAST = Push("Tea week", "Everything made of leaves is cheaper until Sunday.")
_CODE = Push("Your code", "123456 is your code.")
_REGISTRATION = "c" * 22 + ":" + "d" * 140

_PUSHED = sa.text("SELECT count(*) FROM deliveries WHERE step = 0 AND finished_at IS NOT NULL")

# A push step ends when the provider's answer is recorded, so this includes the provider's time.
_HANDED_OVER = sa.text("""
SELECT
  d.notification_id,
  extract(epoch FROM d.finished_at)
FROM deliveries d
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND d.finished_at IS NOT NULL
""")


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    people.fill(engine, PEOPLE)
    here.empty_the_broker()
    env = here.environment(database_url, here.provider.url)
    with here.workers("benchmarks.trusting", env=env) as workers, Client(here.broker_url) as client:
        alone = _latencies(here, engine, client, workers)
        client.blast(people.GOLD, key="beside", push=_BLAST)
        here.wait(lambda: _pushed(engine) > 0, workers)
        began = _pushed(engine)
        beside = _latencies(here, engine, client, workers)
        during = _pushed(engine) - began
    figures.add("p99 alone", f"{_p99(alone):.2f} s", f"median {alone[COUNT // 2]:.2f} s")
    figures.add(
        "p99 beside a blast",
        f"{_p99(beside):.2f} s",
        f"median {beside[COUNT // 2]:.2f} s; {during:,} of the blast meanwhile; target: 2 s at most",
        p99_s=_p99(beside),
    )


def _latencies(here: Installation, engine: sa.Engine, client: Client, workers: list[Child]) -> list[float]:
    """Send critical messages one by one; return the seconds from each call to its recorded hand-over."""
    called: dict[str, float] = {}
    for i in range(COUNT):
        at = time.time()
        called[
            str(client.notify(user=f"critical-{i}", registrations=[_REGISTRATION], push=_CODE, category="critical"))
        ] = at
        threading.Event().wait(EVERY_S)
    handed_over: dict[str, float] = {}

    def all_are() -> bool:
        with engine.connect() as conn:
            handed_over.update((str(id_), float(at)) for id_, at in conn.execute(_HANDED_OVER, {"ids": list(called)}))
        return len(handed_over) == COUNT

    here.wait(all_are, workers)
    return sorted(handed_over[id_] - at for id_, at in called.items())


def _pushed(engine: sa.Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(_PUSHED).scalar_one())


def _p99(ordered: list[float]) -> float:
    return ordered[COUNT * 99 // 100]
