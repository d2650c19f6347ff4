"""Closing slices: one statement that takes the counts of old slices out and adds them to those of their days."""

from __future__ import annotations

from sqlalchemy import text

from knocktwice_worker.database.schema.figures import COUNTS

_KEY = """
  day,
  template,
  blast,
  country,
  category,
  project
"""


def _key_of(table: str) -> str:
    return f"({', '.join(f'{table}.{column.strip()}' for column in _KEY.split(','))})"


# Counts of other channels and reasons are objects by name, so they are added name by name: those of the slices that go
# with each other, and then those with what the day has already.
_ADD_CHANNELS = """
SELECT coalesce(jsonb_object_agg(channel, counts), '{}')
FROM (
  SELECT
    channel,
    jsonb_object_agg(name, n) AS counts
  FROM (
    SELECT
      c.channel,
      v.name,
      sum(CAST(v.n AS numeric)) AS n
    FROM
      (SELECT * FROM jsonb_each(old.channels) UNION ALL SELECT * FROM jsonb_each(excluded.channels))
        AS c(channel, counts),
      jsonb_each_text(c.counts) AS v(name, n)
    GROUP BY 1, 2
  ) each_count
  GROUP BY 1
) each_channel
"""
_ADD_REASONS = """
SELECT coalesce(jsonb_object_agg(reason, n), '{}')
FROM (
  SELECT
    reason,
    sum(CAST(n AS bigint)) AS n
  FROM (
    SELECT * FROM jsonb_each_text(old.suppressed) UNION ALL SELECT * FROM jsonb_each_text(excluded.suppressed)
  ) AS both_of(reason, n)
  GROUP BY reason
) added
"""

#: Takes ``closed``, the slice that stands for all closed ones, and ``before``, the first slice that stays open.
CLOSE = text(f"""
WITH gone AS (
  DELETE FROM rollups
  WHERE slice > :closed AND slice < :before
  RETURNING *
),
reasons AS (
  SELECT
    {_KEY},
    jsonb_object_agg(reason, n) AS suppressed
  FROM (
    SELECT
      {_KEY},
      reason,
      sum(CAST(n AS bigint)) AS n
    FROM gone, jsonb_each_text(suppressed) AS s(reason, n)
    GROUP BY {_KEY}, reason
  ) each_reason
  GROUP BY {_KEY}
),
others AS (
  SELECT
    {_KEY},
    jsonb_object_agg(channel, counts) AS channels
  FROM (
    SELECT
      {_KEY},
      channel,
      jsonb_object_agg(name, n) AS counts
    FROM (
      SELECT
        {_KEY},
        c.channel,
        v.name,
        sum(CAST(v.n AS numeric)) AS n
      FROM gone, jsonb_each(channels) AS c(channel, counts), jsonb_each_text(c.counts) AS v(name, n)
      GROUP BY {_KEY}, c.channel, v.name
    ) each_count
    GROUP BY {_KEY}, channel
  ) each_channel
  GROUP BY {_KEY}
)
INSERT INTO rollups AS old (
  {_KEY},
  slice,
  {", ".join(COUNTS)},
  price,
  channels,
  reached,
  suppressed
)
SELECT
  g.day,
  g.template,
  g.blast,
  g.country,
  g.category,
  g.project,
  :closed,
  {", ".join(f"sum(g.{name})" for name in COUNTS)},
  sum(g.price),
  coalesce((
    SELECT o.channels
    FROM others o
    WHERE {_key_of("o")} = {_key_of("g")}
  ), '{{}}'),
  sum(g.reached),
  coalesce((
    SELECT r.suppressed
    FROM reasons r
    WHERE {_key_of("r")} = {_key_of("g")}
  ), '{{}}')
FROM gone g
GROUP BY {_key_of("g")}
ON CONFLICT (day, slice, template, blast, country, category, project) DO UPDATE SET
  {", ".join(f"{name} = old.{name} + excluded.{name}" for name in (*COUNTS, "price", "reached"))},
  channels = ({_ADD_CHANNELS}),
  suppressed = ({_ADD_REASONS})
""")
