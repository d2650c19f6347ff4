"""PostgreSQL's own statistics of tables that grow faster than it looks.

A table that was empty when PostgreSQL last looked has no statistics. Then the planner guesses that a notification's id
stands in one row of two hundred, and five hundred of them in all: it reads the whole table for each batch, and what
took milliseconds takes seconds. Autovacuum looks once a minute, which on a fresh installation is a hundred thousand
notifications late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = structlog.get_logger(__name__)

#: Rows that change all the time, and are looked up by ids.
_TABLES = ("batches", "notifications", "deliveries", "attempts", "events", "decisions")
#: A table is looked at again when this many times its rows have changed since; of a smaller table than this nothing is
#: known.
_GROWTH, _SMALL = 5, 100

# One of several workers does the check. ANALYZE waits for no lock and delays only other maintenance of the table.
_GROWN = text("""
SELECT s.relname FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.schemaname = current_schema AND s.relname = ANY(:tables)
  AND s.n_mod_since_analyze > :growth * greatest(c.reltuples, :small)
  AND pg_try_advisory_xact_lock(hashtextextended('knocktwice statistics', 0))
ORDER BY s.relname
""")


def refresh(engine: Engine) -> list[str]:
    """Have PostgreSQL look at tables that have grown a lot since it last did; return which."""
    with engine.begin() as conn:
        grown = [
            row.relname for row in conn.execute(_GROWN, {"tables": list(_TABLES), "growth": _GROWTH, "small": _SMALL})
        ]
        for table in grown:
            conn.execute(text(f"ANALYZE {table}"))
    if grown:
        log.info("statistics renewed", tables=grown)
    return grown
