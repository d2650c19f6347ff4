"""The series that come from PostgreSQL: countdowns, marks of followers, brakes, parked messages, webhooks.

And the figures of the day.

Each statement reads the ends of an index, or counts no further than some thousand rows.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.database import migrations
from knocktwice_worker.metrics.series import MOST_COUNTED, Sample
from knocktwice_worker.notifications.store import paused
from knocktwice_worker.reporting import figures
from knocktwice_worker.reporting.figures import Dimension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

#: Milliseconds that one statement may take.
_PATIENCE_MS = 1_500
#: The times within which due steps are counted, as labels.
_WITHIN = {"5m": timedelta(minutes=5), "1h": timedelta(hours=1)}


def _counted(rows: str) -> str:
    """Return the SQL that counts rows up to the most."""
    return f"(SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT {MOST_COUNTED}) counted)"


# Open steps are estimated by the size of the partial index that has them; -1: never analyzed.
_STEPS = text(f"""
SELECT
  {_counted("deliveries WHERE wake_at < knocktwice_now() - interval '1 minute'")} AS overdue,
  (
    SELECT extract(epoch FROM knocktwice_now() - wake_at)
    FROM deliveries
    WHERE wake_at IS NOT NULL
    ORDER BY wake_at
    LIMIT 1
  ) AS late_s,
  (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'deliveries_wake_at_idx'::regclass) AS open
""")

_DUE = text(f"SELECT {_counted('deliveries WHERE wake_at < knocktwice_now() + :within')}")

_MARKS = text("SELECT name, extract(epoch FROM knocktwice_now() - seen_until) AS lag_s FROM followers")

_HELD = "deliveries WHERE brake IS NOT NULL AND wake_at IS NOT NULL AND NOT brake_waived"
_REST = text(f"""
SELECT
  (SELECT count(*) FROM brakes WHERE state = 'on') AS brakes,
  (SELECT coalesce(sum(passed), 0) FROM brakes) AS passed,
  {_counted(_HELD)} AS held,
  {_counted("deliveries WHERE paused IS NOT NULL AND wake_at IS NOT NULL")} AS paused,
  {_counted("dead_letters")} AS dead_letters,
  {_counted("provider_reports")} AS reports,
  {_counted("webhook_deliveries WHERE next_at IS NOT NULL")} AS webhooks,
  (
    SELECT max(first.late_s)
    FROM webhook_endpoints e
    CROSS JOIN LATERAL (
      SELECT extract(epoch FROM knocktwice_now() - d.next_at) AS late_s
      FROM webhook_deliveries d
      WHERE d.endpoint_id = e.id AND d.next_at IS NOT NULL
      ORDER BY d.next_at
      LIMIT 1
    ) first
  ) AS webhook_late_s
""")

_ENDPOINTS = text("""
SELECT
  count(*) FILTER (WHERE disabled_at IS NULL AND failing_since IS NULL) AS well,
  count(*) FILTER (WHERE disabled_at IS NULL AND failing_since IS NOT NULL) AS failing,
  count(*) FILTER (WHERE disabled_at IS NOT NULL) AS disabled
FROM webhook_endpoints
""")

_ALARMS = text("""
SELECT type, sum(count) AS times FROM alarms WHERE at > knocktwice_now() - interval '1 hour' GROUP BY type ORDER BY type
""")

#: The label of pauses that are not of one channel.
_ALL = "all"
#: What is counted of a day's notifications, and of their SMS, without the beginning of its name.
_STATES = (
    "accepted",
    "duplicates",
    "cancelled",
    "failed",
    "pushed",
    "delivered",
    "clicked",
    "fell_back",
    "reached",
)
_SMS_STATES = ("sent", "delivered", "undelivered", "unknown", "wasted")


def read(here: Services) -> Iterator[Sample]:
    """Yield the samples of rows that are under way."""
    with here.engine.connect() as conn:
        _bounded(conn)
        if missing := migrations.pending(conn):
            yield Sample("knocktwice_migrations_pending", len(missing))
            return
        yield Sample("knocktwice_migrations_pending", 0)
        steps = conn.execute(_STEPS).one()
        yield Sample("knocktwice_steps_overdue", steps.overdue)
        yield Sample("knocktwice_step_overdue_seconds", max(0.0, float(steps.late_s or 0)))
        yield Sample("knocktwice_steps_open_estimate", steps.open)
        for label, within in _WITHIN.items():
            due = conn.execute(_DUE, {"within": within}).scalar_one()
            yield Sample("knocktwice_steps_due", due, (label,))
        for mark in conn.execute(_MARKS):
            # This one stands where its slices end, forty days ago.
            if mark.name != "rollups closed":
                yield Sample("knocktwice_follower_lag_seconds", max(0.0, float(mark.lag_s)), (mark.name,))
        rest = conn.execute(_REST).one()
        yield Sample("knocktwice_brakes_on", rest.brakes)
        yield Sample("knocktwice_brake_held", rest.held)
        yield Sample("knocktwice_brake_passed", int(rest.passed))
        on = Counter(one.scope.channel or _ALL for one in paused.active(conn))
        for channel in (_ALL, paused.PUSH, *CHANNELS):
            yield Sample("knocktwice_pauses", on[channel], (channel,))
        yield Sample("knocktwice_paused_messages", rest.paused)
        yield Sample("knocktwice_dead_letters", rest.dead_letters)
        yield Sample("knocktwice_provider_reports_waiting", rest.reports)
        yield Sample("knocktwice_webhooks_waiting", rest.webhooks)
        yield Sample("knocktwice_webhook_oldest_seconds", max(0.0, float(rest.webhook_late_s or 0)))
        for state, count in conn.execute(_ENDPOINTS).one()._mapping.items():
            yield Sample("knocktwice_webhook_endpoints", count, (str(state),))
        for alarm in conn.execute(_ALARMS):
            yield Sample("knocktwice_alarms_lately", int(alarm.times), (alarm.type,))


def read_figures(here: Services) -> Iterator[Sample]:
    """Yield the samples of the notifications that were accepted today, from the roll-ups."""
    with here.engine.connect() as conn:
        _bounded(conn)
        now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        today = now.astimezone(here.settings.day_zone).date()
        told = figures.report(conn, by=Dimension.CATEGORY, since=today, until=today, prices=here.channels.prices)
    for category, line in told.lines.items():
        for state in _STATES:
            yield Sample("knocktwice_today_notifications", getattr(line, state), (category, state))
        for state in _SMS_STATES:
            yield Sample("knocktwice_today_sms", getattr(line, f"sms_{state}"), (category, state))
        yield Sample("knocktwice_today_sms_parts", line.sms_parts, (category,))
    for reason, count in sorted(told.total.suppressed.items()):
        yield Sample("knocktwice_today_suppressed", count, (reason,))
    for name, money in (("cost", told.total.cost), ("sms_only_cost", told.total.sms_only_cost)):
        if money is not None:
            yield Sample(f"knocktwice_today_{name}", float(money))
    if told.as_of is not None:
        yield Sample("knocktwice_figures_age_seconds", max(0.0, (now - told.as_of).total_seconds()))


def _bounded(conn: Connection) -> None:
    conn.execute(text(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {_PATIENCE_MS}"))
