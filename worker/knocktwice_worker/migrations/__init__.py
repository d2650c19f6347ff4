"""Alembic's migrations and how to run them: ``knocktwice migrate``, or by itself when the embedded servers start."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

#: Any number that is ours: two processes that migrate at once wait for each other.
_LOCK = 2_100_226


def pending(conn: Connection) -> list[str]:
    """Return the migrations of this version that the database has not had, oldest first. One from the future lacks none."""
    known = _known()
    if conn.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return known
    reached = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return known[known.index(reached) + 1 :] if reached in known else []


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date. Safe to call at any time and from several processes at once."""
    config = Config()
    # To configparser, which keeps it, a percent sign begins something.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.connect() as conn:
        conn.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        conn.commit()
        try:
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
        finally:
            conn.rollback()
            conn.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            conn.commit()


@cache
def _known() -> list[str]:
    script = ScriptDirectory(str(Path(__file__).parent))
    return [revision.revision for revision in script.walk_revisions()][::-1]
