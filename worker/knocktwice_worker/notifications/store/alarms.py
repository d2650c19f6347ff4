"""Alarms: what an operator must know and no notification tells. Webhooks and ``knocktwice doctor`` read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

#: Decisions were taken although an accepted message about the same person was still pending.
NOT_AWAITED = "decisions.not_awaited"
#: A share of the day's budget is used.
BUDGET = "budget.used"

_RAISE = text("""
INSERT INTO alarms (
  type,
  subject,
  data
)
VALUES (
  :type,
  CAST(md5(:type || ' ' || :about) AS uuid),
  CAST(:data AS jsonb)
)
ON CONFLICT DO NOTHING
RETURNING true
""")


def sound(conn: Connection, type_: str, about: str, data: Mapping[str, Any]) -> bool:
    """Raise an alarm; return whether it is new. A second one of the same type about the same changes nothing.

    Args:
        type_: what happened, as webhooks call it.
        about: about what.
        data: the facts, as webhooks tell them; no personal data.
    """
    raised = conn.execute(_RAISE, {"type": type_, "about": about, "data": json.dumps(data, default=str)})
    return raised.first() is not None


# One alarm an hour, which counts. The row is locked only until the end of the decision.
_NOT_AWAITED = text(f"""
INSERT INTO alarms (
  type,
  subject,
  data,
  count
)
SELECT
  '{NOT_AWAITED}',
  CAST(md5('{NOT_AWAITED} ' || date_trunc('hour', knocktwice_now(), 'UTC')) AS uuid),
  jsonb_build_object('waited_s', CAST(:waited_s AS double precision)),
  :count
ON CONFLICT (type, subject) DO UPDATE SET count = alarms.count + excluded.count
""")


def not_awaited(conn: Connection, count: int, waited_s: float) -> None:
    """Count decisions that waited in vain for accepted messages about their people; the first in an hour is an alarm.

    Args:
        count: how many decisions.
        waited_s: how long they waited, in seconds.
    """
    if count:
        conn.execute(_NOT_AWAITED, {"count": count, "waited_s": waited_s})


_LATELY = text(f"""
SELECT
  coalesce(sum(count), 0),
  max(at)
FROM alarms
WHERE at > knocktwice_now() - :span AND type = '{NOT_AWAITED}'
""")


def lately_not_awaited(conn: Connection, span: timedelta) -> tuple[int, datetime | None]:
    """Return how many decisions waited in vain in the latest ``span``, and the first such moment of the last hour that had any."""
    count, last = conn.execute(_LATELY, {"span": span}).one()
    return int(count), last
