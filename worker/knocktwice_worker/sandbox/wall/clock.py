"""The clock of a development installation: people at the wall need not wait for the hour that a fallback takes.

The whole system compares times only with the database's ``knocktwice_now()``. This replaces that function by one with
an offset, which only ever grows: a clock that goes back would hide rows that already have later times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Engine

_ENABLE = (
    "CREATE TABLE IF NOT EXISTS sandbox_clock (ahead interval NOT NULL)",
    "INSERT INTO sandbox_clock SELECT '0' WHERE NOT EXISTS (SELECT FROM sandbox_clock)",
    """
    CREATE OR REPLACE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    AS 'SELECT now() + (SELECT ahead FROM sandbox_clock)'
    """,
)
_ADVANCE = text("UPDATE sandbox_clock SET ahead = ahead + :by")
# Half a second more, so that the moment has come when the dispatcher looks next.
_ADVANCE_TO_DUE = text("""
UPDATE sandbox_clock
SET ahead = ahead + due.at - knocktwice_now() + interval '0.5 second'
FROM (SELECT min(wake_at) AS at FROM deliveries WHERE wake_at > knocktwice_now()) due
WHERE due.at IS NOT NULL
""")
_AHEAD = text("SELECT ahead FROM sandbox_clock")


class Clock:
    """The clock of one database, which must belong to this sandbox alone.

    Args:
        engine: its database; the function in it is replaced at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with engine.begin() as conn:
            for statement in _ENABLE:
                conn.execute(text(statement))

    def advance(self, by: timedelta) -> None:
        """Move the clock forward."""
        with self._engine.begin() as conn:
            conn.execute(_ADVANCE, {"by": by})

    def advance_to_due(self) -> bool:
        """Move the clock to the next moment at which something is due; return whether there is one."""
        with self._engine.begin() as conn:
            return conn.execute(_ADVANCE_TO_DUE).rowcount > 0

    def ahead(self) -> timedelta:
        """Return how far the clock is ahead of the real one."""
        with self._engine.connect() as conn:
            found: timedelta = conn.execute(_AHEAD).scalar_one()
            return found
