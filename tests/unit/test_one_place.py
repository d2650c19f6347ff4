"""What is promised about the source itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import knocktwice_worker

SOURCE = Path(knocktwice_worker.__file__).parent
#: The room that alone writes these tables, and the migrations, which are history.
WRITER, HISTORY = Path("notifications/store"), Path("database/migrations")
TABLES = "(?:deliveries|attempts|events|decisions|notifications)"
#: A statement on one of the tables, or on a table whose name stands elsewhere, as text or as an expression of SQLAlchemy's.
WRITES = re.compile(
    rf"""
    \b(?:INSERT\s+INTO|MERGE\s+INTO|DELETE\s+FROM|UPDATE|TRUNCATE(?:\s+TABLE)?|COPY)\s+(?:ONLY\s+)?(?:public\.)?
      (?:"?{TABLES}"?(?![\w."]) | \{{)
    | \b(?:insert|update|delete)\(\s*(?:\w+\.)?{TABLES}\b
    | \b{TABLES}\.(?:insert|update|delete)\(
    """,
    re.VERBOSE,
)


def _writers(source: Path) -> set[Path]:
    """Return the folders with files that write one of the tables, but for the migrations."""
    found = {
        path.relative_to(source).parent
        for path in source.rglob("*")
        if path.suffix in {".py", ".sql", ".lua"} and WRITES.search(path.read_text())
    }
    return {folder for folder in found if HISTORY not in (folder, *folder.parents)}


def test_only_the_store_writes_its_tables() -> None:
    assert _writers(SOURCE) == {WRITER}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO events (notification_id) VALUES (1)",
        "UPDATE\n  deliveries d SET wake_at = NULL",
        'UPDATE ONLY public."deliveries" SET price = 1',
        "WITH gone AS (DELETE FROM attempts RETURNING 1)",
        'text(f"DELETE FROM {table}")',
        "TRUNCATE decisions",
        "sa.update(schema.notifications).values(state='failed')",
        "conn.execute(deliveries.insert())",
    ],
)
@pytest.mark.parametrize("suffix", ["py", "sql", "lua"])
def test_a_writer_elsewhere_would_be_seen(tmp_path: Path, statement: str, suffix: str) -> None:
    (tmp_path / "reporting").mkdir()
    (tmp_path / "reporting" / f"new.{suffix}").write_text(statement)
    assert _writers(tmp_path) == {Path("reporting")}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO webhook_events (id)",
        "SELECT FROM deliveries FOR UPDATE",
        "DELETE FROM webhook_deliveries",
        "events.erase(conn)",
    ],
)
def test_what_only_looks_like_it_is_left_alone(tmp_path: Path, statement: str) -> None:
    (tmp_path / "new.py").write_text(statement)
    assert _writers(tmp_path) == set()
