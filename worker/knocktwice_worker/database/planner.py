"""Settings for the planner where its statistics lag behind: the rows of the last seconds are few; an index has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Two settings in one round trip. A planner that expects too many rows starts parallel workers, too, and again for each row
# that is joined: minutes of all cores.
_BY_INDEX = text("SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0")


def by_index(conn: Connection) -> None:
    """Have the statements of this transaction read no whole table where an index can do, and each by one process."""
    conn.execute(_BY_INDEX)
