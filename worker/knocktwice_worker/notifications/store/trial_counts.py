"""Counts of messages that went although a rule on trial would have stopped them, by ten minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The word under which each message that any of the rules would have stopped is counted once.
ANY = "any"
#: Messages of one time and rule are counted in so many rows, so that deciding workers hardly wait for each other.
_SHARDS = 8
_SLOT = timedelta(minutes=10)
_ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
#: How long counts are kept.
KEPT = timedelta(days=35)

# Sorted, so that two transactions that count the same rules never deadlock.
_NOTE = text(f"""
INSERT INTO trial_counts AS t (
  slot,
  rule,
  shard,
  messages
)
SELECT
  date_bin(:slot, knocktwice_now(), :origin),
  rule,
  pg_backend_pid() % {_SHARDS},
  messages
FROM {rows("r", rule="text", messages="bigint")}
ORDER BY rule
ON CONFLICT (slot, rule, shard) DO UPDATE SET
  messages = t.messages + excluded.messages
""")


def note(conn: Connection, counts: Mapping[str, int]) -> None:
    """Add to the counts.

    The rows stay locked until the transaction ends, so this is its last statement.

    Args:
        counts: rule → how many messages it would have stopped; :data:`ANY` → how many all rules together.
    """
    if counts:
        conn.execute(
            _NOTE,
            {"slot": _SLOT, "origin": _ORIGIN, "rule": list(counts), "messages": list(counts.values())},
        )


_READ = text("""
SELECT
  rule,
  CAST(sum(messages) AS bigint) AS messages
FROM trial_counts
WHERE slot >= date_bin(:slot, knocktwice_now() - :since, :origin)
GROUP BY rule
""")


def read(conn: Connection, since: timedelta) -> dict[str, int]:
    """Return rule → how many messages it would have stopped, back to the beginning of ten minutes."""
    found = conn.execute(_READ, {"slot": _SLOT, "origin": _ORIGIN, "since": since})
    return {row.rule: row.messages for row in found}


_EXPIRE = text("DELETE FROM trial_counts WHERE slot < knocktwice_now() - :kept")


def expire(conn: Connection) -> int:
    """Delete old counts, and return how many rows they were."""
    return conn.execute(_EXPIRE, {"kept": KEPT}).rowcount
