"""The condition by which the index that has its day first is read means what it says, at every hour and by any clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice_worker.database import by_time

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

_STARTS = """
FROM (
  SELECT start, start + passed AS at
  FROM generate_series(knocktwice_now() - interval '80 hours', knocktwice_now() + interval '100 hours', '1 hour') start
  CROSS JOIN unnest(CAST(:passed AS interval[])) passed
) x
"""


def test_what_is_not_before_the_start_is_found(working: Services) -> None:
    asked = sa.text("SELECT array_agg(DISTINCT " + by_time.since("x.at", "x.start") + ")" + _STARTS)
    with working.engine.connect() as conn:
        assert conn.scalar(asked, {"passed": ["0", "1 hour", "24 hours"]}) == [True]
        assert conn.scalar(asked, {"passed": ["-1 second", "-1 hour", "-2 days"]}) == [False]
