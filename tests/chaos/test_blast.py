"""A blast whose workers are killed again and again: everybody in the segment is notified once."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa

from benchmarks import people
from knocktwice import Push
from knocktwice_worker.blasts import standing
from support.system import System, eventually

PEOPLE = 10_000
KILLS = 5


def _progress(system: System) -> int:
    """People taken from the segment, people notified, and pushes made."""
    with system.engine.connect() as conn:
        blast = standing.find(conn, "k")
    pushed = system.count("SELECT count(*) FROM deliveries WHERE state = 'sent'")
    return 0 if blast is None else int(blast.total + blast.sent + pushed)


def _state(system: System) -> str:
    with system.engine.connect() as conn:
        blast = standing.find(conn, "k")
    return "" if blast is None else str(blast.state)


@pytest.mark.parametrize("seed", [1])
def test_a_blast_killed_five_times_notifies_everybody_once(system: System, seed: int) -> None:
    dice = random.Random(seed)
    members = people.fill(system.engine, PEOPLE)
    # The killed ones' work is taken up soon. But a provider that is slow, since the machine is busy, is not a dead one:
    # pushes without an answer in time go out again ten seconds later and make it slower still.
    system.settings |= {"KNOCKTWICE_PUSH_PER_S": "0", "KNOCKTWICE_PROVIDER_TIMEOUT_S": "4", "KNOCKTWICE_LEASE_S": "9"}
    system.client.blast(people.GOLD, key="k", push=Push("Tea week", "Until Sunday."))
    for _ in range(KILLS):
        worker = system.start_worker()
        goal = _progress(system) + dice.randrange(1, 2 * members // KILLS)
        eventually(lambda goal=goal: _progress(system) >= goal, within=180, why=system.logs)  # type: ignore[misc]
        worker.kill()
    system.start_worker()
    system.client.blast(people.GOLD, key="k", push=Push("Tea week", "Until Sunday."))
    eventually(lambda: _state(system) == "finished", within=180, why=system.logs)
    with system.engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT user_id, count(*) AS n FROM notifications GROUP BY user_id")).all()
        gold = set(conn.scalars(sa.text("SELECT id FROM users WHERE tags ->> 'plan' = 'gold'")))
    assert {row.user_id for row in rows} == gold
    assert len(gold) == members
    assert all(row.n == 1 for row in rows)
    # The rows that a killed worker left on their way are taken up, too.
    left = "SELECT count(*) FROM notifications WHERE state = 'active'"
    eventually(lambda: system.count(left) == 0, within=180, why=system.logs)
