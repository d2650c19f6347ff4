"""The simulation's clock: PostgreSQL's ``knocktwice_now()`` returns its time, and only the simulation moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine

_NOW = (
    "CREATE OR REPLACE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$ SELECT CAST(current_setting('knocktwice.simulated_now') AS timestamptz) $$"
)
#: What a connection was told last.
_TOLD = "simulated_now"


class Clock:
    """A time that all connections of some engines have.

    Args:
        now: when it begins.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now

    def advance(self, by: timedelta) -> None:
        """Move forward."""
        self.now += by

    def install(self, conn: Connection) -> None:
        """Give a database this clock in place of its own. The database is the simulation's, and nobody else's."""
        conn.exec_driver_sql(_NOW)

    def follow(self, engine: Engine) -> None:
        """Tell each connection of an engine the time, together with its first statement after the clock was moved."""

        def statement(conn: Connection, _cursor: object, said: str, params: Any, *_: object) -> tuple[str, Any]:
            if conn.info.get(_TOLD) != self.now:
                conn.info[_TOLD] = self.now
                said = f"SET knocktwice.simulated_now = '{self.now.isoformat()}'; {said}"
            return said, params

        def rolled_back(conn: Connection) -> None:
            # What a transaction has set is undone with it.
            conn.info.pop(_TOLD, None)

        sa.event.listen(engine, "before_cursor_execute", statement, retval=True)
        sa.event.listen(engine, "rollback", rolled_back)
