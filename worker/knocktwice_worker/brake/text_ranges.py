"""Ranges of numbers to which many single messages went, and what the counts say of each, for the judge."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.brake.pumping import Crowding, History, Numbers, Outcomes
from knocktwice_worker.brake.text_counts import HISTORY, TAKEN, WIDTH
from knocktwice_worker.database import by_time
from knocktwice_worker.database.test_rows import real_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection

#: So many messages are looked at one by one.
_GLANCE = 5_000

#: Whether a brake covers the counts ``c``, or its range was released a while ago.
_BRAKED = """EXISTS (
    SELECT FROM brakes k
    WHERE k.kind = 'pumping'
      AND (k.state = 'on' OR k.grace_until > knocktwice_now())
      AND starts_with(c.prefix, k.prefix)
      AND k.template = c.template
      AND k.project = c.project)"""

# A wide range counts without the narrower ones that are held already, so that these do not stand for their neighbours.
_MANY = text(f"""
SELECT
  left(c.prefix, w.width) AS prefix,
  c.template,
  c.project,
  sum(c.messages) AS messages
FROM text_counts c
CROSS JOIN (VALUES ({WIDTH}), ({WIDTH - 2}), ({WIDTH - 4})) w (width)
WHERE c.slot >= knocktwice_now() - :window
  AND NOT {_BRAKED}
GROUP BY w.width, 1, 2, 3
HAVING sum(c.messages) >= :sample
ORDER BY w.width DESC, messages DESC
LIMIT 30
""")


def many(conn: Connection, window: timedelta, sample: int) -> list[Numbers]:
    """Return the ranges of numbers to which many messages of one template went, the narrowest first."""
    found = conn.execute(_MANY, {"window": window, "sample": sample})
    return [Numbers(row.prefix, row.template, row.project) for row in found]


# All ranges of a template are summed up in one pass: its counts of three days are many. The empty range is everybody.
_HISTORIES = text(f"""
WITH counted AS MATERIALIZED (
  SELECT
    c.prefix,
    c.slot >= knocktwice_now() - :window AS lately,
    sum(c.messages) AS messages,
    sum(c.settled) AS settled,
    sum(c.answered) AS answered,
    sum(c.delivered) AS delivered
  FROM text_counts c
  WHERE c.template = :template
    AND c.project = :project
    AND c.slot >= knocktwice_now() - :history
    AND NOT {_BRAKED}
  GROUP BY 1, 2
)
SELECT
  r.prefix,
  c.lately,
  sum(c.messages) AS messages,
  sum(c.settled) AS settled,
  sum(c.answered) AS answered,
  sum(c.delivered) AS delivered
FROM unnest(CAST(:prefixes AS text[])) AS r(prefix) JOIN counted c ON starts_with(c.prefix, r.prefix)
GROUP BY 1, 2
""")

# Many numbers side by side that were never texted before are a sign of pumping: people of an address book hardly have
# them. Earlier messages are looked for number by number, each with a LIMIT. Without it the planner, which expects a
# single number, would make a join of it, and read all earlier messages for each of a thousand.
_CROWDING = text(f"""
WITH m AS (
  SELECT DISTINCT d.number FROM (
    SELECT d.number
    {TAKEN}
      AND d.number >= :prefix AND d.number < :beyond
      AND coalesce(b.content ->> 'template', '') = :template
      AND coalesce(n.project, '') = :project
    LIMIT :most
  ) d
), fresh AS (
  SELECT m.number FROM m
  LEFT JOIN LATERAL (
    SELECT true AS texted
    FROM deliveries o
    WHERE o.number = m.number AND o.counted_at < :after AND {by_time.day("o.counted_at")} = ANY(:days)
      AND {real_message("o")}
    LIMIT 1
  ) before ON true
  WHERE before.texted IS NULL
)
SELECT
  count(*) AS numbers,
  count(DISTINCT left(number, -2)) AS hundreds
FROM fresh
""")

# The days are all on which something was sent: the index that has a number's messages begins with the day.
_BEFORE = text(f"""
SELECT
  span.after,
  span.until,
  ARRAY(SELECT first + i FROM generate_series(0, {by_time.day("span.after")} - first) i) AS days
FROM (SELECT knocktwice_now() - :window AS after, knocktwice_now() AS until) span
CROSS JOIN (SELECT min({by_time.day("counted_at")}) AS first FROM deliveries WHERE counted_at IS NOT NULL) counted
""")


def histories(
    conn: Connection, template: str, project: str, prefixes: Sequence[str], window: timedelta
) -> Mapping[str, History]:
    """Return what is known of the messages of one template that no brake covers.

    Args:
        template, project: as :func:`many` tells them.
        prefixes: the ranges of numbers.
        window: what is younger is of now.

    Returns:
        Range → the messages to it; the empty range has all of them.
    """
    scope = {"template": template, "project": project, "prefixes": ["", *prefixes]}
    spans: dict[str, dict[bool, Outcomes]] = defaultdict(dict)
    for row in conn.execute(_HISTORIES, scope | {"window": window, "history": HISTORY}):
        spans[row.prefix][row.lately] = Outcomes(*map(int, row[2:]))
    return {
        prefix: History(spans[prefix].get(True, Outcomes()), spans[prefix].get(False, Outcomes()))
        for prefix in ("", *prefixes)
    }


def crowding_of(conn: Connection, numbers: Numbers, window: timedelta, *, most: int) -> Crowding:
    """Return how close those numbers of a range are to each other that were never texted before the window.

    Args:
        most: so many messages are looked at, one by one.
    """
    scope = {"prefix": numbers.prefix, "template": numbers.template, "project": numbers.project}
    scope["beyond"] = _beyond(numbers.prefix)
    span = conn.execute(_BEFORE, {"window": window}).one()
    row = conn.execute(_CROWDING, scope | {**span._mapping, "most": most}).one()
    return Crowding(row.numbers, row.hundreds)


def _beyond(prefix: str) -> str:
    """Return what all numbers with a prefix come before, and no other number behind them does."""
    digits = prefix.removeprefix("+")
    # Behind nines alone there is no number; letters come after digits in every order.
    return f"+{int(digits) + 1}" if digits.strip("9") else "+a"


# A held message counts at the time at which it was due: that is when it was asked for, however long it is held.
_LATELY = text(f"""
SELECT
  (SELECT coalesce(sum(messages), 0) FROM text_counts c
    WHERE c.template = k.template AND c.project = k.project AND c.slot >= knocktwice_now() - :window
      AND starts_with(c.prefix, k.prefix))
  + (SELECT count(*) FROM (
      SELECT FROM deliveries d
      WHERE d.brake = k.id AND d.wake_at IS NOT NULL AND NOT d.brake_waived AND d.due_at >= knocktwice_now() - :window
      LIMIT {_GLANCE}
    ) h)
FROM brakes k WHERE k.id = :id
""")


def asked_lately(conn: Connection, brake: int, window: timedelta) -> int:
    """Return how many messages were asked for in the window that a brake covers, sent or held."""
    return int(conn.execute(_LATELY, {"id": brake, "window": window}).scalar_one())
