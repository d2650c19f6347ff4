"""Segments over 200,000 people: PostgreSQL uses the indexes that were made for them,
and reading all takes no memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import sqlalchemy as sa

from knocktwice_worker.audience import forgetting, segments
from knocktwice_worker.audience.segment_filter import parse
from support.databases import new_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knocktwice_worker.embedded.servers import Servers

PEOPLE = 200_000

#: Each has tags; 7 of 10 have a device and 4 of 5 of these show notifications; every second has a number; consent and
#: opt-outs are rare, as they are.
GENERATE = (
    """
    INSERT INTO users (id, tags, locale)
    SELECT 'u-' || g, jsonb_build_object(
        'city', 'c' || g % 2000, 'n', g % 100, 'likes', jsonb_build_array('x' || g % 3000, 'y' || g % 7),
        'subscribed_to_push', g % 50 <> 1), (ARRAY['de-AT', 'en-US', NULL])[1 + g % 3]
    FROM generate_series(1, :people) g
    """,
    """
    INSERT INTO devices (registration, user_id, platform, notifications_enabled, last_seen_at)
    SELECT 'r-' || g, 'u-' || g, (ARRAY['android', 'ios'])[1 + g % 2], g % 5 <> 0,
           knocktwice_now() - (g % 270) * interval '1 day' - interval '1 hour'
    FROM generate_series(1, :people) g WHERE g % 10 < 7
    """,
    """
    INSERT INTO phones (user_id, number, region, consented_at)
    SELECT 'u-' || g, '+43660' || 1000000 + g, 'AT', CASE WHEN g % 200 = 1 THEN knocktwice_now() END
    FROM generate_series(1, :people) g WHERE g % 2 = 1
    """,
    """
    INSERT INTO opt_outs (number, source)
    SELECT '+43660' || 1000000 + g, 'STOP' FROM generate_series(1, :people) g WHERE g % 100 = 1
    """,
)


@pytest.fixture(scope="module")
def city(servers: Servers) -> Iterator[sa.Engine]:
    """A database of many people."""
    with new_database(servers) as url:
        engine = sa.create_engine(url, poolclass=sa.StaticPool)
        with engine.begin() as conn:
            for statement in GENERATE:
                conn.execute(sa.text(statement), {"people": PEOPLE})
        # Index-only scans need the visibility map.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text("VACUUM ANALYZE users, devices, phones, opt_outs"))
        yield engine
        engine.dispose()


def plan(engine: sa.Engine, work: Callable[[sa.Connection], object], about: str = "") -> str:
    """Return how PostgreSQL would execute the last statement that ``work`` sends and that has the words ``about``."""
    sent: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    with engine.connect() as conn:
        sa.event.listen(conn, "before_cursor_execute", note)
        work(conn)
        sa.event.remove(conn, "before_cursor_execute", note)
        statement, parameters = [one for one in sent if about in one[0]][-1]
        rows = conn.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
        conn.rollback()
    return "\n".join(str(line) for (line,) in rows)


def is_(field: str, value: object = True, op: str = "=") -> dict[str, object]:
    return {"field": field, "op": op, "value": value}


SEED = {"and": [is_("tags.subscribed_to_push", False), is_("can_receive_sms")]}

COUNTS = [
    (is_("tags.city", "c7"), ["users_tags_idx"]),
    (is_("tags.city", ["c7", "c8", "c9"], "in"), ["users_tags_idx"]),
    (is_("tags.likes", "x7", "contains"), ["users_tags_idx"]),
    ({"and": [is_("tags.city", "c7"), is_("tags.n", 50, "<")]}, ["users_tags_idx"]),
    ({"or": [is_("tags.city", "c7"), is_("tags.likes", "x7", "contains")]}, ["users_tags_idx"]),
    ({"and": [is_("tags.city", "c7"), is_("notifications_enabled")]}, ["users_tags_idx", "devices_enabled_idx"]),
    ({"and": [is_("tags.city", "c7"), is_("can_receive_sms")]}, ["users_tags_idx", "phones_bound_idx"]),
    ({"and": [is_("tags.city", "c7"), is_("has_device", False)]}, ["users_tags_idx", "devices_user_id_idx"]),
    (is_("consent"), ["phones_consented_idx"]),
    (is_("last_seen", "1 day ago", ">"), ["devices_last_seen_at_idx"]),
    (SEED, ["users_tags_idx"]),
]

PAGES = [
    ({"everyone": True}, ["users_pkey"]),
    (is_("notifications_enabled"), ["users_pkey", "devices_enabled_idx"]),
    (is_("notifications_enabled", False), ["users_pkey", "devices_enabled_idx"]),
    (is_("has_device"), ["users_pkey", "devices_user_id_idx"]),
    (is_("has_phone"), ["users_pkey", "phones_bound_idx"]),
    (is_("can_receive_sms"), ["users_pkey", "phones_bound_idx"]),
    (is_("platform", "ios"), ["users_pkey", "devices_user_id_idx"]),
    (is_("country", "AT"), ["users_pkey", "phones_pkey", "devices_user_id_idx"]),
    (is_("consent"), ["users_pkey", "phones_consented_idx"]),
    (is_("last_seen", "1 day ago", ">"), ["users_pkey", "devices_user_id_idx"]),
    (is_("tags.city", "c7"), ["users_tags_idx"]),
    ({"not": SEED}, ["users_pkey", "phones_bound_idx"]),
    ({"or": [is_("tags.n", 7), is_("last_seen", "90 days ago", "<")]}, ["users_pkey", "devices_user_id_idx"]),
]


@pytest.mark.parametrize(("wanted", "indexes"), COUNTS, ids=str)
def test_counting_a_small_segment_reads_its_index(city: sa.Engine, wanted: Any, indexes: list[str]) -> None:
    told = plan(city, lambda conn: segments.count(conn, parse(wanted)))
    assert [name for name in indexes if name not in told] == [], told
    assert "Seq Scan on users" not in told, told


@pytest.mark.parametrize(("wanted", "indexes"), PAGES, ids=str)
def test_a_page_of_members_reads_nobody_twice(city: sa.Engine, wanted: Any, indexes: list[str]) -> None:
    told = plan(city, lambda conn: segments.members(conn, parse(wanted), "u-5", 500))
    assert [name for name in indexes if name not in told] == [], told
    assert "Seq Scan on users" not in told, told
    assert "Seq Scan on devices" not in told, told
    assert "Seq Scan on phones" not in told, told
    # Nothing that takes up everybody before the first of the page.
    assert not any(work in told for work in ("Hash", "hashed", "Materialize", "Merge")), told


def test_forgetting_stale_devices_reads_its_index(city: sa.Engine) -> None:
    with city.connect() as conn:
        stale = conn.execute(sa.text("SELECT interval '269 days'")).scalar_one()
        conn.rollback()
    assert "devices_last_seen_at_idx" in plan(city, lambda conn: forgetting.forget(conn, stale), "last_seen_at")


@pytest.mark.parametrize("wanted", [{"everyone": True}, SEED, {"not": SEED}, is_("has_phone")], ids=str)
def test_reading_all_members_takes_the_memory_of_a_page(city: sa.Engine, wanted: Any) -> None:
    process, checked = psutil.Process(os.getpid()), parse(wanted)
    read, after, start = 0, "", 0
    with city.connect() as conn:
        expected = segments.count(conn, checked)
        while page := segments.members(conn, checked, after or None, 1000):
            assert len(page) <= 1000
            assert len(set(page)) == len(page)
            assert after not in page
            read, after = read + len(page), page[-1]
            start = start or process.memory_info().rss
    assert read == expected > 1000
    # All ids at once would be 20 MB and more.
    assert process.memory_info().rss - start < 4 * 2**20
