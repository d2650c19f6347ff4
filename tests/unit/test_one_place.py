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
#: A statement on one of the tables, or on a table whose name stands elsewhere, as text or as an expression of
#: SQLAlchemy's.
WRITES = re.compile(
    rf"""
    \b(?:INSERT\s+INTO|MERGE\s+INTO|DELETE\s+FROM|UPDATE|TRUNCATE(?:\s+TABLE)?|COPY)\s+(?:ONLY\s+)?(?:public\.)?
      (?:"?{TABLES}"?(?![\w."]) | \{{)
    | \b(?:insert|update|delete)\(\s*(?:\w+\.)?{TABLES}\b
    | \b{TABLES}\.(?:insert|update|delete)\(
    """,
    re.VERBOSE,
)

#: Where a subquery begins that the planner may execute for each row of the other side.
SUBQUERY = re.compile(r"\b(?:FROM|JOIN|IN|,)\s*\(\s*(?=SELECT\b)")


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


def _locking_subqueries(source: Path) -> list[str]:
    """Return the subqueries that lock a limited number of rows, each time that they are executed."""
    found = []
    for path in source.rglob("*.py"):
        if HISTORY in path.relative_to(source).parents:
            continue
        code = path.read_text()
        for match in SUBQUERY.finditer(code):
            depth, end = 1, match.end()
            while depth and end < len(code):
                depth += {"(": 1, ")": -1}.get(code[end], 0)
                end += 1
            body = code[match.end() : end]
            if re.search(r"\bLIMIT\b[^()]*\bFOR\s+(?:NO KEY\s+)?UPDATE\b", body):
                found.append(f"{path.relative_to(source)}: {body}")
    return found


def test_a_limit_on_locked_rows_stands_in_a_cte_which_is_executed_once() -> None:
    assert not _locking_subqueries(SOURCE)


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        (
            "UPDATE t SET a = 1 FROM (\n  SELECT id FROM t ORDER BY id\n  LIMIT :most\n  FOR UPDATE SKIP LOCKED\n) due",
            True,
        ),
        ("DELETE FROM t WHERE id IN (SELECT id FROM t WHERE (a) LIMIT 5 FOR UPDATE)", True),
        ("WITH due AS (SELECT id FROM t LIMIT 5 FOR UPDATE) DELETE FROM t USING due", False),
        ("SELECT count(*) FROM (SELECT 1 FROM t LIMIT 5) counted", False),
        ("UPDATE t SET a = 1 FROM (SELECT id FROM t ORDER BY id FOR UPDATE) used", False),
    ],
)
def test_such_a_subquery_is_seen(tmp_path: Path, statement: str, *, seen: bool) -> None:
    (tmp_path / "new.py").write_text(f'text("""{statement}""")')
    assert bool(_locking_subqueries(tmp_path)) == seen
