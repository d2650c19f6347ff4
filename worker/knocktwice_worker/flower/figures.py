"""The figures of the whole installation, for the pages. Every query looks at a bounded number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from sqlalchemy import text

from knocktwice_shared.names import INBOX_ACCEPTED
from knocktwice_worker.audience import segments
from knocktwice_worker.blasts import schedules
from knocktwice_worker.blasts import standing as blast_standing
from knocktwice_worker.brake import brakes
from knocktwice_worker.content import template_store
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.diagnosis import inbox_age
from knocktwice_worker.fleet import members
from knocktwice_worker.reporting import figures, history
from knocktwice_worker.runtime import budget_alarms
from knocktwice_worker.switches import audit, overrides, pauses
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from knocktwice_worker.config import Settings
    from knocktwice_worker.services import Services

#: So many open rows are counted; beyond that the page says that there are more.
_MOST = 100_000
#: Minutes of the chart.
_MINUTES = 60
#: So many notifications are counted for the chart.
_CHARTED = 50_000

_WAITING = text("""
SELECT
  count(*) AS open,
  count(*) FILTER (WHERE step = 0) AS pushes,
  count(*) FILTER (WHERE wake_at <= knocktwice_now() + interval '5 minutes') AS soon,
  count(*) FILTER (WHERE wake_at <= knocktwice_now() + interval '1 hour') AS later,
  count(*) FILTER (WHERE paused IS NOT NULL AND state IN ('scheduled', 'reserved')) AS paused,
  count(*) FILTER (WHERE brake IS NOT NULL AND NOT brake_waived AND state IN ('scheduled', 'reserved')) AS braked,
  count(*) FILTER (WHERE state = 'reserved' AND reason = 'waits its turn') AS turn,
  greatest(extract(epoch FROM knocktwice_now() - min(wake_at)), 0) AS overdue_s
FROM (
  SELECT step, state, reason, wake_at, paused, brake, brake_waived
  FROM deliveries WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT :most
) d
""")

# The verdict is in the ledger only, so fewer rows are asked. What is due next comes first, and nights end soon.
_IN_THEIR_NIGHT = text("""
SELECT count(*) FROM (
  SELECT notification_id, step FROM deliveries
  WHERE wake_at > knocktwice_now() AND step > 0 AND state IN ('scheduled', 'reserved')
  ORDER BY wake_at LIMIT :most
) d
WHERE EXISTS (
  SELECT FROM decisions l
  WHERE l.notification_id = d.notification_id AND l.step = d.step AND l.verdict = 'quiet_hours'
    AND CAST(l.inputs ->> 'until' AS timestamptz) > knocktwice_now()
)
""")
_MOST_NIGHTS = 10_000

# A chart of the ids' own times: the latest notifications lie together.
_CHART = text(f"""
SELECT
  CAST(extract(epoch FROM knocktwice_now() - created_at) AS integer) / 60 AS minute,
  CASE
    WHEN state IN ('reached', 'texted', 'suppressed', 'cancelled', 'active') THEN state
    WHEN state = 'pushed' THEN 'reached'
    ELSE 'failed'
  END AS state,
  count(*) AS n
FROM (SELECT state, created_at, project FROM notifications ORDER BY id DESC LIMIT :charted) n
WHERE created_at > knocktwice_now() - make_interval(mins => :minutes) AND state <> 'duplicate'
  AND NOT {is_test("project")}
GROUP BY 1, 2
""")

#: What goes at a pace → the setting that says how many in a second.
_PACES = (
    ("pushes", "push_per_s"),
    ("SMS parts of a sender", "sms_parts_per_s"),
    ("WhatsApp of a sender", "whatsapp_per_s"),
)

#: What the chart tells apart, from the bottom up.
SERIES = ("reached", "texted", "suppressed", "cancelled", "failed", "active")


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a minute in the chart, in its units: 10 wide, 100 high.

    Attributes:
        x, y, height: where it stands.
        series: one of :data:`SERIES`.
    """

    x: int
    y: float
    height: float
    series: str


def now(conn: Connection, here: Services) -> dict[str, Any]:
    """Return what the first page shows."""
    at: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    zone = here.settings.day_zone
    today = at.astimezone(zone).date()
    told = figures.report(conn, by=figures.Dimension.CATEGORY, since=today, until=today, prices=here.channels.prices)
    bars, most = _chart(conn)
    latest = history.page(conn, history.Wanted(limit=20))
    settings = overrides.in_force(conn, here.settings)
    return {
        "at": at,
        "total": told.total,
        "waiting": conn.execute(_WAITING, {"most": _MOST}).one(),
        "most": _MOST,
        "bars": bars,
        "highest": most,
        "minutes": _MINUTES,
        "series": SERIES,
        "latest": latest.messages,
        "pauses": [one for one in pauses.list_all(conn) if one.ended_at is None],
        "brakes": brakes.list_all(conn),
        "night": conn.execute(_IN_THEIR_NIGHT, {"most": _MOST_NIGHTS}).scalar_one(),
        "broker": _broker(here),
        "paces": [(name, getattr(settings, setting)) for name, setting in _PACES],
        "budget": [*_budget(settings, told), *_budgets_of_projects(conn, here)],
    }


def _chart(conn: Connection) -> tuple[list[Bar], int]:
    counts: dict[int, dict[str, int]] = {}
    for minute, state, n in conn.execute(_CHART, {"charted": _CHARTED, "minutes": _MINUTES}):
        counts.setdefault(max(minute, 0), {})[state] = n
    most = max((sum(own.values()) for own in counts.values()), default=0)
    bars: list[Bar] = []
    for minute, own in counts.items():
        top = 100.0
        for series in SERIES:
            height = 100 * own.get(series, 0) / most
            top -= height
            if height:
                bars.append(Bar(10 * (_MINUTES - 1 - minute), round(top, 2), round(height, 2), series))
    return bars, most


@dataclass(frozen=True, slots=True)
class Broker:
    """The messages in the broker, and the workers that take them.

    Attributes:
        queues: name → messages that wait, and workers that take them.
        accepted: messages that no worker has committed yet.
        oldest_s: the age of the oldest of these: fallbacks wait until what was said before them is committed.
        push_paused_until: until when FCM has asked for patience.
    """

    queues: dict[str, tuple[int, int]]
    accepted: int
    oldest_s: float
    push_paused_until: datetime | None


def _broker(here: Services) -> Broker | None:
    try:
        workers = [one for one in members.list_all(here.redis) if one.role == "worker" and not one.gone]
        queues = {
            queue.value.removeprefix("knocktwice."): (length, sum(queue.value in one.queues for one in workers))
            for queue, length in here.queues.lengths().items()
        }
        accepted = here.redis.zcard(INBOX_ACCEPTED)
        return Broker(queues, accepted, inbox_age.oldest_s(here.redis), here.push_pace.paused_until())
    except (RedisError, ConnectionError):
        return None


def _budget(settings: Settings, told: figures.Report) -> list[tuple[str, int, int]]:
    """Return name, parts sent today and parts allowed of each budget that is set."""
    limits = settings.budget
    own = [
        (str(c), told.lines[str(c)].sms_parts if str(c) in told.lines else 0, n) for c, n in limits.categories.items()
    ]
    return [one for one in [("in all", told.total.sms_parts, limits.total), *own] if one[2]]


def _budgets_of_projects(conn: Connection, here: Services) -> list[tuple[str, int, int]]:
    """Return the same of the budgets that projects have of their own, which Redis counts."""
    if not any(own.budget for own in here.limits.limits.projects.values()):
        return []
    try:
        found = budget_alarms.uses_by(conn, here)[1]
    except RedisError:
        return []
    own = [one for one in found if one.project is not None and one.limit]
    return [(f"{one.project}, {'in all' if one.name == 'all' else one.name}", one.used, one.limit) for one in own]


def blasts(conn: Connection) -> dict[str, Any]:
    """Return the latest blasts, the recurring ones, and what a new one may be made of."""
    return {
        "blasts": list(blast_standing.latest(conn, 30)),
        "recurring": schedules.listed(conn),
        "segments": [one.name for one in segments.list_all(conn)],
        "templates": [one.name for one in template_store.names(conn)],
    }


_PARKED = text("""
SELECT id, task, split_part(reason, ':', 1) AS reason, at FROM dead_letters ORDER BY id DESC LIMIT 20
""")


def standing(conn: Connection, here: Services) -> dict[str, Any]:
    """Return what the page of the switches shows."""
    return {
        "pauses": pauses.list_all(conn),
        "changed": overrides.list_all(conn),
        "brakes": brakes.list_all(conn),
        "parked": conn.execute(_PARKED).all(),
        "webhooks": endpoints.list_all(conn),
        "lines": audit.lines(conn, limit=20),
        "channels": ["push", *(entry.name for entry, _ in here.channels.all())],
    }
