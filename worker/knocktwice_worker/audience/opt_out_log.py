"""The log of opt-outs: who said what about a number, and when.

The latest word counts, in whatever order messages arrive.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.audience import opt_outs
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notation.phone_numbers import spelled

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from knocktwice_shared.messages import OptOutSet

#: How long the log is kept: no late message can contradict it any more.
_KEPT = timedelta(days=90)

# What was said before another change of the same number is void. A repeat of a change has the same time.
_SAID = f"""
said AS (
  SELECT
    r.number,
    r.source,
    least(r.at, knocktwice_now()) AS at
  FROM {rows("r", number="text", source="text", at="timestamptz")}
  WHERE NOT EXISTS (
    SELECT
    FROM opt_out_changes c
    WHERE c.number = r.number AND c.channel IS NULL AND c.at >= least(r.at, knocktwice_now())
  )
)
"""
_SAY_OUT = text(f"""
WITH {_SAID},
added AS (
  INSERT INTO opt_outs (number, source, created_at)
  SELECT
    number,
    source,
    at
  FROM said
  ORDER BY number
  ON CONFLICT DO NOTHING
  RETURNING number
)
INSERT INTO opt_out_changes (number, opted_out, source, at, changed)
SELECT
  s.number,
  true,
  s.source,
  s.at,
  a.number IS NOT NULL
FROM said s
LEFT JOIN added a ON a.number = s.number
""")
_SAY_IN = text(f"""
WITH {_SAID},
removed_of_channels AS (
  DELETE FROM channel_opt_outs o USING said s
  WHERE o.number = s.number AND o.created_at <= s.at
  RETURNING o.number
),
removed AS (
  DELETE FROM opt_outs o USING said s
  WHERE o.number = s.number
  RETURNING o.number
)
INSERT INTO opt_out_changes (number, opted_out, source, at, changed)
SELECT
  s.number,
  false,
  s.source,
  s.at,
  r.number IS NOT NULL OR s.number = ANY(:lifted) OR s.number IN (SELECT number FROM removed_of_channels)
FROM said s
LEFT JOIN removed r ON r.number = s.number
RETURNING number
""")
# What was said later of all texts, or of this channel, makes it void.
_SAID_OF_CHANNEL = f"""
said AS (
  SELECT
    r.number,
    r.channel,
    r.source,
    least(r.at, knocktwice_now()) AS at
  FROM {rows("r", number="text", channel="text", source="text", at="timestamptz")}
  WHERE NOT EXISTS (
    SELECT
    FROM opt_out_changes c
    WHERE c.number = r.number
      AND (c.channel = r.channel OR (c.channel IS NULL AND NOT c.opted_out))
      AND c.at >= least(r.at, knocktwice_now())
  )
)
"""
_SAY_OUT_OF_CHANNEL = text(f"""
WITH {_SAID_OF_CHANNEL},
moved AS (
  INSERT INTO channel_opt_outs (number, channel, source, created_at)
  SELECT
    number,
    channel,
    source,
    at
  FROM said
  ORDER BY number, channel
  ON CONFLICT DO NOTHING
  RETURNING number, channel
)
INSERT INTO opt_out_changes (number, channel, opted_out, source, at, changed)
SELECT
  s.number,
  s.channel,
  true,
  s.source,
  s.at,
  m.number IS NOT NULL
FROM said s
LEFT JOIN moved m ON m.number = s.number AND m.channel = s.channel
""")
_SAY_INTO_CHANNEL = text(f"""
WITH {_SAID_OF_CHANNEL},
moved AS (
  DELETE FROM channel_opt_outs o USING said s
  WHERE o.number = s.number AND o.channel = s.channel
  RETURNING o.number, o.channel
)
INSERT INTO opt_out_changes (number, channel, opted_out, source, at, changed)
SELECT
  s.number,
  s.channel,
  false,
  s.source,
  s.at,
  m.number IS NOT NULL
FROM said s
LEFT JOIN moved m ON m.number = s.number AND m.channel = s.channel
""")
_STILL_VALID = text(f"WITH {_SAID} SELECT number FROM said")


def say(conn: Connection, changes: Sequence[OptOutSet], secret: bytes) -> None:
    """Apply what the application said about numbers, each only if nothing newer was said about its number.

    Args:
        secret: the installation's, with which numbers of erased people were hashed.
    """
    latest: dict[tuple[str, str], OptOutSet] = {}
    for said in changes:
        change = replace(said, phone=spelled(said.phone))
        about = (change.phone, change.channel or "")
        if about not in latest or latest[about].at <= change.at:
            latest[about] = change
    ordered = [latest[about] for about in sorted(latest)]
    out, back = ([c for c in ordered if c.opted_out is wanted and c.channel is None] for wanted in (True, False))
    if out:
        conn.execute(_SAY_OUT, _columns(out))
    if back:
        valid = [row.number for row in conn.execute(_STILL_VALID, _columns(back))]
        conn.execute(_SAY_IN, {**_columns(back), "lifted": sorted(opt_outs.lift(conn, valid, secret))})
    for wanted, statement in ((True, _SAY_OUT_OF_CHANNEL), (False, _SAY_INTO_CHANNEL)):
        if own := [c for c in ordered if c.opted_out is wanted and c.channel is not None]:
            conn.execute(statement, {**_columns(own), "channel": [c.channel for c in own]})


def _columns(changes: Sequence[OptOutSet]) -> dict[str, list[object]]:
    return {
        "number": [c.phone for c in changes],
        "source": [c.source for c in changes],
        "at": [c.at for c in changes],
    }


_FORGET_NUMBERS = text("UPDATE opt_out_changes SET number = '' WHERE number = ANY(:numbers)")


def forget_numbers(conn: Connection, numbers: Collection[str]) -> None:
    """Delete numbers from the log. What was said, and when, stays."""
    if numbers:
        conn.execute(_FORGET_NUMBERS, {"numbers": sorted(numbers)})


_FORGET_OLD = text("DELETE FROM opt_out_changes WHERE noted_at < knocktwice_now() - :keep")


def forget_old(conn: Connection) -> int:
    """Delete entries of the log that nothing can contradict any more, and return how many."""
    return conn.execute(_FORGET_OLD, {"keep": _KEPT}).rowcount
