"""The migrations and how to run them: ``knocktwice migrate``, or by itself when the embedded servers start.

Alembic's own commands work, too, in a folder with the repository's ``pyproject.toml``: ``alembic current``,
``alembic check``, ``alembic upgrade head --sql``. ``env.py`` is their way in.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Any number that is ours: two processes that migrate at once wait for each other.
_LOCK = 2_100_226
#: A statement that waits for a table makes everybody wait who comes after it. So it waits no longer than this, and
#: gives the others their turn before it tries again.
LOCK_TIMEOUT = timedelta(seconds=5)
_TRIES = 12


class TableInUse(KnocktwiceError):
    """A table that a migration must lock was in use all the time: end what holds it (a dump, a psql); try again.

    Migrations that were finished stay; the one that had to wait was taken back.
    """

    def __init__(self, error: OperationalError) -> None:
        super().__init__(
            f"a table is in use and cannot be migrated; end what holds it and try again: {error.orig}".strip()
        )


def pending(conn: Connection) -> list[str]:
    """Return the migrations that the database lacks, oldest first; none, if it is newer than this version."""
    known = _known()
    if conn.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return known
    reached = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return known[known.index(reached) + 1 :] if reached in known else []


def upgrade(
    engine: Engine, *, lock_timeout: timedelta = LOCK_TIMEOUT, applied: Callable[[], None] = lambda: None
) -> None:
    """Bring the schema up to date. Safe to call at any time and from several processes at once.

    Args:
        lock_timeout: how long one try waits for a table that is in use.
        applied: called after each migration.

    Raises:
        TableInUse: none of several tries got its table.
    """
    config = Config()
    # To configparser, which keeps it, a percent sign begins something.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["lock_timeout"] = lock_timeout
    config.attributes["applied"] = applied
    for left in reversed(range(_TRIES)):
        with engine.connect() as conn:
            config.attributes["connection"] = conn
            try:
                command.upgrade(config, "head")
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                if not left:
                    raise TableInUse(error) from error
            else:
                return


@contextmanager
def one_at_a_time(conn: Connection, lock_timeout: timedelta) -> Iterator[None]:
    """Hold the advisory lock of migrations. Another thread or process that needs it waits until the end of the block.

    The lock belongs to the session, because each migration has a transaction of its own. ``lock_timeout`` is for what
    is done inside; the wait for the advisory lock has none.
    """
    conn.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    conn.execute(text(set_lock_timeout(lock_timeout)))
    conn.commit()
    try:
        yield
    finally:
        conn.rollback()
        conn.execute(text("RESET lock_timeout"))
        conn.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        conn.commit()


def set_lock_timeout(longest: timedelta) -> str:
    """Return the SQL that bounds each wait for a lock in this session."""
    return f"SET lock_timeout = '{longest // timedelta(milliseconds=1)}ms'"


@cache
def _known() -> list[str]:
    script = ScriptDirectory(str(Path(__file__).parent))
    return [revision.revision for revision in script.walk_revisions()][::-1]
