"""Sessions: what a job does in PostgreSQL, statement by statement, and how it loses its session or its patience.

PostgreSQL's own time-outs count real time, of which a run takes none. So the simulation brings them about when its own clock
says so: a transaction that was idle for too long loses its session, a statement that waited too long for a lock fails.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg2
import sqlalchemy as sa
from psycopg2.errors import LockNotAvailable, QueryCanceled
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from simulation.prepared import Prepared
from simulation.turns import Session, current

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from simulation.clock import Clock

#: What ``engine.create`` sets: the longest wait for a lock (seconds).
_LOCK_S = 10.0
#: How long a connection is waited for (seconds of real time).
_CONNECT_S = 600
#: After so many looks a session that was told to end has not.
_PATIENCE = 1_000_000
_SHORTER = re.compile(r"SET LOCAL lock_timeout = '(\d+)s'")
_WHAT = re.compile(r"\b(UPDATE|INSERT INTO|DELETE FROM|FROM)\s+(\w+)")
_NOW = (
    "CREATE OR REPLACE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
    "AS $$ SELECT current_setting('simulation.now')::timestamptz $$"
)


class Sessions:
    """The database of a simulation, looked at from outside.

    Args:
        url: of the database.
        clock: the simulation's.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._names: dict[str, str] = {}
        self._ended: set[int] = set()
        self._url = sa.make_url(url)
        self._watch = psycopg2.connect(self._url.set(drivername="postgresql").render_as_string(hide_password=False))
        self._watch.autocommit = True
        with self._watch.cursor() as cursor:
            cursor.execute(_NOW)
            cursor.execute("SET simulation.now = '2026-06-01 12:00:00+00'")
        self._prepared = Prepared(self._watch)

    def close(self) -> None:
        """Close the connection."""
        self._watch.close()

    def follow(self, engine: sa.Engine, idle: timedelta) -> None:
        """Make every statement and commit of an engine a step.

        Args:
            idle: how long its transactions may be idle.
        """
        idle_s = idle.total_seconds()

        def began(conn: sa.Connection) -> None:
            conn.info["begins"] = True

        def statement(
            conn: sa.Connection, _cursor: object, said: str, params: Any, _context: object, many: bool
        ) -> tuple[str, Any]:
            pid = self._step(conn, self._name(said))
            asked = said
            job = current()
            if job is not None:
                session = job.sessions.setdefault(pid, Session(idle_s, self._clock.now, _LOCK_S))
                session.used_at = self._clock.now
                if shorter := _SHORTER.match(said):
                    session.lock_s = float(shorter[1])
                    said = f"SET LOCAL simulation.lock_timeout = '{shorter[1]}'"
            if said is asked and not many:
                said = self._prepared.said(pid, said, params)
            if conn.info.pop("begins", False):
                # One round trip; the driver's own BEGIN would be another.
                said = f"BEGIN; SET LOCAL simulation.now = '{self._clock.moment.isoformat()}'; {said}"
            return said, params

        def commits(conn: sa.Connection) -> None:
            if "begins" in conn.info:
                return
            pid = self._step(conn, "COMMIT")
            if (job := current()) is not None:
                job.sessions.pop(pid, None)

        def rolls_back(conn: sa.Connection) -> None:
            job = current()
            if job is not None and not conn.invalidated:
                job.sessions.pop(_pid(conn), None)

        def checked_out(connection: Any, *_: object) -> None:
            if connection.info.backend_pid in self._ended:
                raise sa.exc.DisconnectionError

        def connects(_dialect: object, _record: object, _args: object, given: dict[str, Any]) -> None:
            # Real time says nothing here: a machine that is busy with other things answers late.
            given["connect_timeout"] = _CONNECT_S

        def connected(connection: Any, _: object) -> None:
            self._ended.discard(connection.info.backend_pid)
            self._prepared.forget(connection.info.backend_pid)
            _prepare(connection)

        def roll_back(connection: Any) -> None:
            # What failed may be prepared or not.
            if _end(connection, "ROLLBACK; DEALLOCATE ALL"):
                self._prepared.forget(connection.get_backend_pid())

        # As the pool's own look whether a session is still there, without asking it each time.
        engine.pool._pre_ping = False
        dialect: Any = engine.dialect
        dialect.do_commit, dialect.do_rollback = _commit, roll_back
        sa.event.listen(engine, "checkout", checked_out)
        sa.event.listen(engine, "do_connect", connects)
        sa.event.listen(engine, "connect", connected)
        sa.event.listen(engine, "begin", began)
        sa.event.listen(engine, "before_cursor_execute", statement, retval=True)
        sa.event.listen(engine, "commit", commits)
        sa.event.listen(engine, "rollback", rolls_back)
        sa.event.listen(engine, "handle_error", _as_a_lock_timeout)

    def _step(self, conn: sa.Connection, at: str) -> int:
        pid = _pid(conn)
        job = current()
        if job is not None:
            job.point(at)
            job.pid = pid
        return pid

    def _name(self, said: str) -> str:
        """Return what a statement is called in stories."""
        if said not in self._names:
            found = _WHAT.search(said)
            verb = said.lstrip().split(None, 1)[0]
            place = f"{found[2]}" if found else ""
            if verb == "WITH":
                verb = "SELECT"
            locks = " (locks)" if "FOR UPDATE" in said and verb == "SELECT" else ""
            self._names[said] = f"{verb} {place}{locks}".strip()
        return self._names[said]

    def ask(self, query: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Ask something from outside, in a transaction of its own."""
        with self._watch.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def blocked(self, pid: int) -> bool:
        """Whether a session waits for a lock."""
        return bool(self.ask("SELECT pg_blocking_pids(%(pid)s)", {"pid": pid})[0][0])

    def waits(self, pids: Iterable[int]) -> dict[int, list[int]]:
        """Return for which sessions each of these waits."""
        return dict(
            self.ask("SELECT pid, pg_blocking_pids(pid) FROM unnest(%(pids)s::int[]) AS pid", {"pids": list(pids)})
        )

    def end(self, pid: int) -> None:
        """End a session as a restart of the server does, and wait until its locks are free."""
        self._ended.add(pid)
        asked = {"pid": pid}
        self.ask("SELECT pg_terminate_backend(%(pid)s)", asked)
        # PostgreSQL's own wait for it looks ten times a second only. Locks are free before a session leaves this list.
        for _ in range(_PATIENCE):
            if not self.ask("SELECT FROM pg_stat_get_activity(%(pid)s)", asked):
                return
        raise AssertionError(f"the session {pid} does not end")

    def lose_patience(self, pid: int) -> None:
        """End a statement that waits for a lock."""
        self.ask("SELECT pg_cancel_backend(%(pid)s)", {"pid": pid})


def _pid(conn: sa.Connection) -> int:
    driver: Any = conn.connection.dbapi_connection
    return int(driver.info.backend_pid) if driver is not None else 0


def _prepare(connection: Any) -> None:
    with connection.cursor() as cursor:
        # Real time says nothing here, but for a deadlock, which PostgreSQL finds.
        cursor.execute(
            "SET deadlock_timeout = '15ms'; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
            "SET synchronous_commit = off; SET jit = off; SET plan_cache_mode = force_generic_plan"
        )
    connection.commit()
    connection.autocommit = True


def _commit(connection: Any) -> None:
    _end(connection, "COMMIT")


def _end(connection: Any, said: str) -> bool:
    """End a transaction; return whether there was one."""
    if connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
        return False
    with connection.cursor() as cursor:
        cursor.execute(said)
    return True


def _as_a_lock_timeout(context: sa.engine.ExceptionContext) -> BaseException | None:
    job = current()
    if job is None or not job.lock_timed_out or not isinstance(context.original_exception, QueryCanceled):
        return None
    job.lock_timed_out = False
    error = LockNotAvailable("canceling statement due to lock timeout")
    return sa.exc.OperationalError(context.statement, None, error, hide_parameters=True)
