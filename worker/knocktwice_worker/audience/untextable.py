"""Numbers that texts do not reach: landlines, numbers out of service, phones that block us.

Providers tell it when they refuse a message, or in a report about it. Such a number is passed over for some days
(``KNOCKTWICE_UNTEXTABLE_DAYS``), then tried once more. A message that arrives, or the number bound anew, takes it off
the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Untextable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: A phone that is switched off comes back, most of the time. After so many failures over so many days it is given up.
_FAILURES, _FAILING_FOR = 3, "7 days"

#: SQL that is true if a row ``u`` of ``untextable`` forbids a message now. ``:again`` is the time after which the
#: number is tried once more.
FORBIDS = f"""
u.last_at > knocktwice_now() - CAST(:again AS interval)
AND (
  u.reason <> '{Untextable.UNREACHABLE}'
  OR (u.failures >= {_FAILURES} AND u.last_at - u.first_at >= interval '{_FAILING_FOR}')
)
"""

#: SQL that learns from rows with ``number``, ``channel`` and ``reason``, each number once.
LEARN = """
INSERT INTO untextable AS u (number, channel, reason)
SELECT
  number,
  channel,
  min(reason)
FROM {source}
WHERE number IS NOT NULL AND reason IS NOT NULL
GROUP BY number, channel
ORDER BY number, channel
ON CONFLICT (number, channel) DO UPDATE SET
  reason = excluded.reason,
  failures = u.failures + 1,
  last_at = excluded.last_at
"""

_LEARN = text(LEARN.format(source=rows("r", number="text", channel="text", reason="text")))


def learn(conn: Connection, failed: Sequence[tuple[str, str, Untextable]]) -> None:
    """Remember numbers whose messages a provider refused: number, channel, and why."""
    if failed:
        numbers, channels, reasons = zip(*failed, strict=True)
        conn.execute(_LEARN, {"number": list(numbers), "channel": list(channels), "reason": [str(r) for r in reasons]})


_FORGET = text("DELETE FROM untextable WHERE number = ANY(:numbers)")


def forget(conn: Connection, numbers: Collection[str]) -> None:
    """Take numbers off the list, because their owner is erased."""
    if numbers:
        conn.execute(_FORGET, {"numbers": sorted(numbers)})


# Twice as long as the longest memory that a setting allows; the numbers were tried again since, or nobody wanted to.
_EXPIRE = text("DELETE FROM untextable WHERE last_at < knocktwice_now() - interval '800 days'")


def expire(conn: Connection) -> int:
    """Delete numbers that nobody has tried for long, and return how many."""
    return conn.execute(_EXPIRE).rowcount
