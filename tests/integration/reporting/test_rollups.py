"""The roll-ups say what a recount of every single notification says: whatever happened, in whatever order,
and after kills.
"""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from knocktwice_worker.database import migrations
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.reporting import rollups
from knocktwice_worker.services import Services
from support.random_histories import RandomHistories, recount, rolled_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.clock import Clock

UTC = "UTC"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


class Killed(Exception):
    """The worker is gone, and its transaction with it."""


class Killer:
    """Ends a worker before one of its next statements."""

    def __init__(self, engine: sa.Engine) -> None:
        self.left: int | None = None
        sa.event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed


@pytest.fixture
def counter(here: Services) -> Iterator[Services]:
    """A worker of its own that counts, to be killed."""
    other = Services(here.settings)
    yield other
    other.close()


def agree(here: Services, zone: str = UTC) -> None:
    with here.engine.connect() as conn:
        said, expected = rolled_up(conn), recount(conn, zone)
    assert said == expected


def settle(here: Services, clock: Clock, zone: str = UTC) -> None:
    """Let enough time go by for everything to be seen, and count it."""
    clock.advance(MINUTE)
    rollups.refresh(here.engine, zone, everything=True)


def test_the_rollups_equal_a_recount_after_fifty_kills(here: Services, counter: Services, clock: Clock) -> None:
    life, dice, killer, kills = RandomHistories(here, seed=5), random.Random(5), Killer(counter.engine), 0
    while kills < 50:
        for _ in range(dice.randrange(20)):
            life.step()
        clock.advance(timedelta(seconds=dice.choice([0, 1, 60, 400])))
        for _ in range(2):
            killer.left = dice.randrange(16)
            try:
                rollups.refresh(counter.engine, UTC, everything=dice.random() < 0.5)
            except Killed:
                kills += 1
    killer.left = None
    settle(here, clock)
    agree(here)


def test_counting_twice_changes_nothing(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=1)
    for _ in range(200):
        life.step()
    settle(here, clock)
    agree(here)
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE rollup_slices SET dirty = true"))
    settle(here, clock)
    agree(here)


def test_the_day_is_that_of_the_declared_zone(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=2)
    for _ in range(60):
        life.step()
        clock.advance(timedelta(minutes=37))
    settle(here, clock, "Asia/Kathmandu")
    agree(here, "Asia/Kathmandu")


def test_nothing_is_counted_that_has_not_changed(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=3)
    for _ in range(50):
        life.step()
    clock.advance(MINUTE)
    assert rollups.refresh(here.engine, UTC) >= 1
    clock.advance(DAY)
    assert rollups.refresh(here.engine, UTC) == 0


def test_a_transaction_that_ends_late_is_counted(here: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "_MARGIN", timedelta(microseconds=1))
    with here.engine.begin() as slow:
        slow.execute(sa.text("SELECT knocktwice_now()"))
        RandomHistories(here, seed=4).step()
        rollups.refresh(here.engine, UTC, everything=True)
        insert = (
            "INSERT INTO batches (id, content, category, ttl, reference) VALUES (:id, '{}', 'critical', '1 h', '{}')"
        )
        id_ = {"id": "00000000-0000-7000-8000-000000000001"}
        slow.execute(sa.text(insert), id_)
        slow.execute(
            sa.text("INSERT INTO notifications (id, batch_id, params, state) VALUES (:id, :id, '{}', 'active')"), id_
        )
        # Another one that is long over must not carry the follower past this one.
        RandomHistories(here, seed=5).step()
        rollups.refresh(here.engine, UTC, everything=True)
    settle(here, clock)
    agree(here)


def test_a_closed_slice_keeps_its_counts_when_its_notifications_are_deleted(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=6)
    for _ in range(300):
        life.step()
        clock.advance(MINUTE)
    settle(here, clock)
    with here.engine.connect() as conn:
        expected = recount(conn)
    clock.advance(rollups.CLOSED_AFTER + DAY)
    rollups.close(here.engine, UTC)
    rollups.close(here.engine, UTC)
    with here.engine.begin() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM rollup_slices")).scalar_one() == 0
        # A receipt that comes even later is for nobody any more.
        conn.execute(sa.text("UPDATE notifications SET finished_at = knocktwice_now() WHERE finished_at IS NOT NULL"))
    settle(here, clock)
    with here.engine.begin() as conn:
        assert rolled_up(conn) == expected
        conn.execute(sa.text("DELETE FROM notifications"))
    for _ in range(20):
        life.step()
    clock.advance(rollups.CLOSED_AFTER + DAY)
    rollups.refresh(here.engine, UTC)
    rollups.close(here.engine, UTC)
    with here.engine.connect() as conn:
        said = rolled_up(conn)
    assert {key: said[key] for key in expected} == expected


def test_young_slices_stay_open_when_old_ones_are_closed(here: Services, clock: Clock) -> None:
    old, young = RandomHistories(here, seed=9), RandomHistories(here, seed=10)
    for _ in range(50):
        old.step()
    settle(here, clock)
    clock.advance(rollups.CLOSED_AFTER + DAY)
    for _ in range(100):
        young.step()
    settle(here, clock)
    with here.engine.connect() as conn:
        expected = rolled_up(conn)
    rollups.close(here.engine, UTC)
    with here.engine.connect() as conn:
        assert rolled_up(conn) == expected
        lines = "SELECT count(*) FILTER (WHERE slice = :closed), count(*) FILTER (WHERE slice > :closed) FROM rollups"
        closed, open_ = conn.execute(sa.text(lines), {"closed": rollups.CLOSED}).one()
    assert min(closed, open_) > 10


def test_a_slice_that_somebody_else_counts_is_closed_by_the_next(
    here: Services, counter: Services, clock: Clock
) -> None:
    life = RandomHistories(here, seed=8)
    for _ in range(50):
        life.step()
    settle(here, clock)
    with here.engine.connect() as conn:
        expected = rolled_up(conn)
    clock.advance(rollups.CLOSED_AFTER + DAY)
    other = here.engine.connect()

    def overtake(_conn: object, cursor: Any, statement: str, *_: object) -> None:
        # All old slices are marked; now, before we count the first one, somebody else does.
        if "SKIP LOCKED" in statement and not other.in_transaction():
            other.execute(sa.text("SELECT FROM rollup_slices ORDER BY starts_at LIMIT 1 FOR UPDATE"))
        cursor.execute("SET LOCAL lock_timeout = '5s'")

    sa.event.listen(counter.engine, "before_cursor_execute", overtake)
    rollups.close(counter.engine, UTC)
    assert other.in_transaction()
    other.close()
    closed = sa.text("SELECT count(*) FROM rollups WHERE slice = :closed")
    with here.engine.connect() as conn:
        assert conn.execute(closed, {"closed": rollups.CLOSED}).scalar_one() == 0
        assert rolled_up(conn) == expected
    rollups.close(here.engine, UTC)
    with here.engine.connect() as conn:
        assert conn.execute(closed, {"closed": rollups.CLOSED}).scalar_one() > 0
        assert rolled_up(conn) == expected


def test_deleted_notifications_stay_counted(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=7)
    for _ in range(100):
        life.step()
    settle(here, clock)
    with here.engine.begin() as conn:
        expected = rolled_up(conn)
        conn.execute(sa.text("DELETE FROM notifications WHERE id IN (SELECT id FROM notifications LIMIT 10)"))
        conn.execute(sa.text("UPDATE notifications SET finished_at = knocktwice_now() WHERE finished_at IS NOT NULL"))
    settle(here, clock)
    with here.engine.connect() as conn:
        assert rolled_up(conn) == expected


def test_what_the_migration_cannot_know_is_counted_again(here: Services, clock: Clock) -> None:
    life = RandomHistories(here, seed=8)
    for _ in range(300):
        life.step()
    settle(here, clock)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with here.engine.connect() as conn:
        config.attributes["connection"] = conn
        command.downgrade(config, "0014")
    migrations.upgrade(here.engine)
    with here.engine.connect() as conn:
        counts = (f"sum(CAST(channels->'whatsapp'->>'{name}' AS numeric))" for name in ("sent", "unpriced", "price"))
        sums = f"SELECT {', '.join(counts)} FROM rollups"  # noqa: S608
        sent, unpriced, price = conn.execute(sa.text(sums)).one()
    # Until then all of them are paid for by the table.
    assert sent == unpriced > 0 == price
    settle(here, clock)
    agree(here)
