"""The planner learns of tables that were empty a moment ago before it reads them whole for each batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7_texts
from knocktwice_worker.database import table_statistics
from support.databases import new_database
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.services import Services

_FILL = sa.text(
    "INSERT INTO events (notification_id, kind, registration, at) SELECT CAST(i AS uuid), 'clicked', '', now() FROM unnest(CAST(:ids AS text[])) i"
)
_PLAN = sa.text("EXPLAIN SELECT FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[]))")


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    with new_database(servers) as url:
        yield url


def _fill(here: Services, count: int) -> None:
    with here.engine.begin() as conn:
        conn.execute(_FILL, {"ids": uuid7_texts(count)})


def _reads_all(here: Services) -> bool:
    with here.engine.connect() as conn:
        return "Seq Scan" in "".join(conn.execute(_PLAN, {"ids": uuid7_texts(500)}).scalars())


def test_a_table_that_has_just_been_filled_is_looked_at_and_then_left_in_peace(here: Services) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("ANALYZE events"))
    _fill(here, 20_000)
    assert _reads_all(here)
    # What a session has changed is counted when it says so, a moment later.
    eventually(lambda: table_statistics.refresh(here.engine) == ["events"])
    assert not _reads_all(here)
    _fill(here, 20_000)
    assert table_statistics.refresh(here.engine) == []


def test_a_small_table_is_left_in_peace(here: Services) -> None:
    _fill(here, 300)
    assert table_statistics.refresh(here.engine) == []


def test_of_several_workers_one_looks(here: Services) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("ANALYZE events"))
    _fill(here, 20_000)
    with ThreadPoolExecutor(4) as pool:

        def look() -> list[list[str]]:
            return [tables for tables in pool.map(lambda _: table_statistics.refresh(here.engine), range(4)) if tables]

        assert eventually(look) == [["events"]]
