"""Two operations at once, in every way that the boundaries of their statements allow: no sleeps, and no luck.

The first operation runs in a thread and is halted before its k-th statement or commit; the second one runs to its end
meanwhile; then the first goes on. If the second waits for a lock that the first holds, which PostgreSQL says, the first
goes on at once. Doing so for every k, and again with the roles exchanged, meets what two workers meet once in a million
times.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Operation = Callable[[], object]

#: Only a test that fails waits as long.
_PATIENCE_S = 20.0
#: Between two looks at who waits for whom, if nothing happens.
_GLANCE_S = 0.002


@dataclass(frozen=True, slots=True)
class Meeting:
    """How two operations met.

    Attributes:
        halted: whether the first one has as many statements; if not, it simply ran before the second.
        before: what the first had done by then, statement by statement; a commit is one, too.
        waited: the second had to wait for the first.
        deadlocks: operations that PostgreSQL ended, and that were repeated as their messages would be.
    """

    halted: bool
    before: tuple[str, ...]
    waited: bool
    deadlocks: int


def both_ways(pairs: Mapping[str, tuple[object, object, object]]) -> list[tuple[str, str]]:
    """Return the name of each pair with the side that goes first; an operation that meets its like has only one.

    Args:
        pairs: name → what it begins with, left, right.
    """
    return [
        (name, first) for name, (_, left, right) in pairs.items() for first in ("left", "right")[: 1 + (left != right)]
    ]


@dataclass
class _Run:
    """An operation in a thread of its own."""

    operation: Operation
    halt_at: int = 0
    points: list[str] = field(default_factory=list)
    pid: int = 0
    error: Exception | None = None
    halted: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    moved: threading.Event = field(default_factory=threading.Event)

    def start(self, local: threading.local) -> None:
        self._thread = threading.Thread(target=self._do, args=(local,), daemon=True)
        self._thread.start()

    def _do(self, local: threading.local) -> None:
        local.run = self
        try:
            self.operation()
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for it
            self.error = error
        finally:
            local.run = None
            self.moved.set()

    def point(self, statement: str) -> None:
        if len(self.points) + 1 == self.halt_at and not self.halted.is_set():
            self.halted.set()
            self.moved.set()
            if not self.go_on.wait(_PATIENCE_S):
                raise TimeoutError("nobody let the operation go on")
        self.points.append(statement)

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(_PATIENCE_S)
        if self.over:
            return
        raise TimeoutError(f"an operation never came to its end; its last statement: {self.points[-1:]}")


class Interleaver:
    """Lets operations meet whose statements go through these engines.

    Args:
        engines: every engine that the operations use.
        watch: of the same database, for looking at who waits for whom.
        look_up: what a process looks up anew now and then, by one thread for all. It is done before each meeting; in one
            it would be a halted thread, for which the other waits where PostgreSQL does not see it.
    """

    def __init__(
        self, engines: Sequence[sa.Engine], watch: sa.Engine, look_up: Callable[[], object] = lambda: None
    ) -> None:
        self._engines = engines
        self._watch = watch
        self._look_up = look_up
        self._local = threading.local()

    def __enter__(self) -> Interleaver:
        for engine in self._engines:
            sa.event.listen(engine, "before_cursor_execute", self._statement)
            sa.event.listen(engine, "commit", self._commit)
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines:
            sa.event.remove(engine, "before_cursor_execute", self._statement)
            sa.event.remove(engine, "commit", self._commit)

    def meet(self, first: Operation, second: Operation, at: int) -> Meeting:
        """Halt ``first`` before its ``at``-th statement, run ``second``, and bring both to their ends.

        What a deadlock ended is repeated. Any other error of an operation is raised.
        """
        self._look_up()
        one, other = _Run(first, halt_at=at), _Run(second)
        one.start(self._local)
        if not one.moved.wait(_PATIENCE_S):
            raise TimeoutError("the first operation neither halted nor ended")
        halted, before = one.halted.is_set(), tuple(one.points)
        waited = False
        other.start(self._local)
        try:
            while not other.over and not waited:
                other.moved.wait(_GLANCE_S)
                waited = not other.moved.is_set() and self._waits(other.pid, one.pid)
        finally:
            one.go_on.set()
        one.join()
        other.join()
        return Meeting(halted, before, waited, self._repeat(one) + self._repeat(other))

    def every_meeting(self, prepare: Callable[[], tuple[Operation, Operation]]) -> Iterator[Meeting]:
        """Let two operations meet at every point of the first.

        Args:
            prepare: makes what they work on, anew each time, and returns them.
        """
        for at in range(1, 200):
            first, second = prepare()
            meeting = self.meet(first, second, at)
            yield meeting
            if not meeting.halted:
                return
        raise AssertionError("an operation of two hundred statements")

    @contextmanager
    def gate(self, lock: str, **values: object) -> Iterator[None]:
        """Hold what ``lock`` locks, to stop an operation in the middle of a statement."""
        with self._watch.connect() as conn:
            conn.execute(sa.text(lock), values)
            yield
            conn.rollback()

    def all_at_once(self, operations: Sequence[Operation], lock: str, **values: object) -> int:
        """Run operations that all get stuck at the same lock, one behind the other, and let them go.

        Returns:
            How many of them PostgreSQL had to end because of a deadlock.
        """
        runs = [_Run(operation) for operation in operations]
        with self.gate(lock, **values):
            for run in runs:
                run.start(self._local)
                while not run.over and not self._waits(run.pid, None):
                    run.moved.wait(_GLANCE_S)
        for run in runs:
            run.join()
        return sum(map(self._repeat, runs))

    def _waits(self, pid: int, for_: int | None) -> bool:
        if not pid:
            return False
        query = sa.text("SELECT pg_blocking_pids(:pid)")
        with self._watch.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            blocking = conn.execute(query, {"pid": pid}).scalar_one()
        return bool(blocking) if for_ is None else for_ in blocking

    def _repeat(self, run: _Run) -> int:
        if run.error is None:
            return 0
        if not isinstance(run.error, OperationalError) or "deadlock" not in str(run.error.orig):
            raise run.error
        run.operation()
        return 1

    def _statement(self, conn: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        self._point(conn, statement)

    def _commit(self, conn: sa.Connection) -> None:
        self._point(conn, "COMMIT")

    def _point(self, conn: sa.Connection, statement: str) -> None:
        run: _Run | None = getattr(self._local, "run", None)
        if run is not None:
            run.point(statement)
            # Not before it is halted: asking begins the transaction.
            run.pid = _session(conn)


def _session(conn: sa.Connection) -> int:
    """Return the session of a transaction. PostgreSQL says it: behind a pooler the driver knows another number."""
    driver: Any = conn.connection.dbapi_connection
    with driver.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])
