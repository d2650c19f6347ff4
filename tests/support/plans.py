"""Plans of queries on tables that grow with the notifications: what they would read if the tables were large."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Tables that grow with the notifications.
LARGE = ("deliveries", "notifications", "events", "decisions", "attempts", "webhook_deliveries")


@contextmanager
def noted(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Note the queries of a block, with their values."""
    asked: list[tuple[str, Any]] = []

    def note(*told: Any) -> None:
        if told[2].lstrip().startswith(("SELECT", "WITH")):
            asked.append((told[2], told[3]))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def unbounded(conn: sa.Connection, asked: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return the scans of large tables that would read as much of them as there is.

    A scan is bounded by what its index is asked for, by a limit that ends it, or by an index of only some of the rows.
    """
    found = []
    # As large tables do: an index is read where there is one that serves.
    conn.execute(sa.text("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"))
    partial = set(
        conn.execute(sa.text("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")).scalars()
    )
    for statement, values in asked:
        plan = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
        for scan in _scans(plan[0]["Plan"], limited=False):
            if scan.get("Relation Name") not in LARGE:
                continue
            few = scan.get("Index Name") in partial and (scan["limited"] or "Index Cond" in scan)
            if not (few or _asks(scan) or (scan["limited"] and "Filter" not in scan)):
                found.append({**scan, "statement": statement})
    conn.rollback()
    return found


def rows_read(conn: sa.Connection, asked: Iterable[tuple[str, Any]], table: str) -> int:
    """Run queries again, and return how many rows of a table they look at."""
    read = 0
    for statement, values in asked:
        plan = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()
        for scan in _scans(plan[0]["Plan"], limited=False):
            if scan.get("Relation Name") == table:
                read += scan["Actual Loops"] * (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0))
    return int(read)


def _asks(scan: dict[str, Any]) -> bool:
    """Whether the index is asked for values or for a span of time, and not only told where to begin."""
    asked, index = scan.get("Index Cond", ""), scan.get("Index Name", "")
    return " = " in asked or (bool(asked) and index.endswith(("_at_idx", "_times_idx")))


#: Nodes that read all that is below them before they give anything.
_WHOLE = ("Sort", "Aggregate", "Hash", "WindowAgg")


def _scans(node: dict[str, Any], *, limited: bool) -> list[dict[str, Any]]:
    """Return the scans of a plan, with whether a limit above ends each."""
    limited = node["Node Type"] == "Limit" or (limited and node["Node Type"] not in _WHOLE)
    own = [{**node, "limited": limited}] if "Scan" in node["Node Type"] else []
    return own + [one for each in node.get("Plans", ()) for one in _scans(each, limited=limited)]
