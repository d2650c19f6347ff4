"""New rows lie together, also between vacuums of an old table: a BRIN index by time would read all of it otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from support.databases import new_database

if TYPE_CHECKING:
    from knocktwice_worker.embedded.servers import Servers

#: Rows of one round, of lengths that differ; each ends a moment later, as rows of workers do, and grows by that.
_AT_ONCE, _PAGES_PER_RANGE = 5_000, 32
_ACCEPT = """
INSERT INTO notifications (id, batch_id, user_id, params, state, created_at)
SELECT
  gen_random_uuid(), gen_random_uuid(), 'user-' || g || repeat('x', (random() * 20)::int),
  jsonb_build_object('name', repeat('n', (random() * 60)::int)), 'active', to_timestamp(:round * 60 + g * 0.01)
FROM generate_series(1, :many) g
"""
_END = (
    "UPDATE notifications SET state = 'pushed', reason = 'not planned', finished_at = created_at WHERE state = 'active'"
)
_RANGES = """
SELECT count(DISTINCT (ctid::text::point)[0]::int / :pages) FROM notifications WHERE created_at >= to_timestamp(:since)
"""


def _spread(url: str) -> tuple[int, int]:
    """Fill a table with vacuums in between; return the ranges of its last rows, and of all its rows."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        for round_ in range(14):
            conn.execute(sa.text(_ACCEPT), {"round": round_, "many": _AT_ONCE})
            conn.execute(sa.text(_END))
            if round_ in (7, 11):
                conn.execute(sa.text("VACUUM ANALYZE notifications"))
        last, every = (
            int(conn.execute(sa.text(_RANGES), {"pages": _PAGES_PER_RANGE, "since": since * 60}).scalar_one())
            for since in (12, 0)
        )
    engine.dispose()
    return last, every


def test_a_vacuum_does_not_scatter_new_rows_over_old_pages(servers: Servers) -> None:
    with new_database(servers) as url:
        last, every = _spread(url)
    # Two rounds of fourteen are a seventh of the table.
    assert last < every / 4
