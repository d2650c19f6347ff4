"""Alembic's migrations and how to run them: ``knocktwice migrate``, or by itself when the embedded servers start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

#: Any number that is ours: two processes that migrate at once wait for each other.
_LOCK = 2_100_226


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date. Safe to call at any time and from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
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
