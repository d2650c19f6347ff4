"""Numbers that must not be texted over one channel: a person may leave one and keep another.

An opt-out without a channel (``opt_outs.py``) concerns all texts, whatever stands here, and an opt-in without a channel
lifts these, too. When a person is erased, theirs become one that concerns all texts, because only a hash is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Collection

#: Whether the number ``{number}`` must not be texted over ``{channel}``. PostgreSQL would read the whole table into a
#: hash; of a subquery with an OFFSET it looks up each row in the index.
FORBIDS = "EXISTS (SELECT FROM channel_opt_outs co WHERE co.number = {number} AND co.channel = {channel} OFFSET 0)"

_ADD = text(f"""
WITH added AS (
  INSERT INTO channel_opt_outs (number, channel, source)
  SELECT
    number,
    :channel,
    :source
  FROM {rows("r", number="text")}
  ORDER BY number
  ON CONFLICT DO NOTHING
  RETURNING number
)
INSERT INTO opt_out_changes (number, channel, opted_out, source, changed)
SELECT
  r.number,
  :channel,
  true,
  :source,
  a.number IS NOT NULL
FROM {rows("r", number="text")}
LEFT JOIN added a ON a.number = r.number
RETURNING number, changed
""")


def add(conn: Connection, numbers: Collection[str], channel: str, source: str) -> list[str]:
    """Text numbers no more over a channel; return those that had not opted out of it."""
    if not numbers:
        return []
    said = conn.execute(_ADD, {"number": sorted(set(numbers)), "channel": channel, "source": source})
    return [row.number for row in said if row.changed]


_REMOVE = text(f"""
WITH removed AS (
  DELETE FROM channel_opt_outs
  WHERE number = ANY(:number) AND channel = :channel
  RETURNING number
)
INSERT INTO opt_out_changes (number, channel, opted_out, source, changed)
SELECT
  r.number,
  :channel,
  false,
  :source,
  d.number IS NOT NULL
FROM {rows("r", number="text")}
LEFT JOIN removed d ON d.number = r.number
RETURNING number, changed
""")


def remove(conn: Connection, numbers: Collection[str], channel: str, source: str) -> list[str]:
    """Let numbers be texted again over a channel, unless they opted out of all; return those that had opted out."""
    if not numbers:
        return []
    said = conn.execute(_REMOVE, {"number": sorted(set(numbers)), "channel": channel, "source": source})
    return [row.number for row in said if row.changed]


_BRING = text(f"""
INSERT INTO channel_opt_outs (number, channel, source, created_at)
SELECT
  number,
  channel,
  source,
  coalesce(least(since, knocktwice_now()), knocktwice_now())
FROM {rows("r", number="text", channel="text", source="text", since="timestamptz")}
ORDER BY number, channel
ON CONFLICT DO NOTHING
RETURNING number
""")


def bring(conn: Connection, listed: Collection[tuple[str, str, str, object]]) -> set[str]:
    """Take over number, channel, source and time from another list; return the numbers with a channel that is new.

    Nobody is told, as of :func:`opt_outs.bring`.
    """
    if not listed:
        return set()
    number, channel, source, since = (list(column) for column in zip(*listed, strict=True))
    found = conn.execute(_BRING, {"number": number, "channel": channel, "source": source, "since": since})
    return {row.number for row in found}


_OF = text("""
SELECT
  number,
  array_agg(channel ORDER BY channel) AS channels
FROM channel_opt_outs
WHERE number = ANY(:numbers)
GROUP BY number
""")


def of(conn: Connection, numbers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return number → the channels over which it must not be texted, for those with any."""
    found = conn.execute(_OF, {"numbers": sorted(numbers)})
    return {row.number: tuple(row.channels) for row in found}
