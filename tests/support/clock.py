"""A clock that tests can move.

The system compares times only with the database's ``knocktwice_now()``; this replaces it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from datetime import datetime, timedelta


#: The table in which a test's clock keeps how far it is ahead.
CLOCK_TABLE = "test_clock"


class Clock:
    """The database's clock, as far ahead of the real one as the test says. Every connection and process sees it."""

    def __init__(self, database_url: str) -> None:
        self._engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        self._run(f"CREATE TABLE {CLOCK_TABLE} (ahead interval NOT NULL)")
        self._run("INSERT INTO test_clock VALUES ('0')")
        self._run(
            "CREATE OR REPLACE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            "AS 'SELECT now() + (SELECT ahead FROM test_clock)'"
        )

    def advance(self, by: timedelta) -> None:
        """Move the clock forward."""
        self._run("UPDATE test_clock SET ahead = ahead + :by", by=by)

    @property
    def ahead(self) -> timedelta:
        """How far it is ahead of the real one."""
        with self._engine.begin() as conn:
            found: timedelta = conn.execute(sa.text("SELECT ahead FROM test_clock")).scalar_one()
            return found

    def set(self, moment: datetime) -> None:
        """Make it ``moment`` now."""
        self._run("UPDATE test_clock SET ahead = CAST(:moment AS timestamptz) - now()", moment=moment)

    def _run(self, query: str, **values: object) -> None:
        with self._engine.begin() as conn:
            conn.execute(sa.text(query), values)
