"""Receipt health: finds the kinds of devices (platform and version of the app) that never confirm their pushes.

An app that was built without receipts, or a browser that cannot send any, never confirms a push. With ``not_delivered``
every person with such a device would get an SMS. So the share of confirmed pushes is counted by the hour, set-based,
the current hour again and again. When a step is decided, the kinds of devices that never report deliveries are known
(``KNOCKTWICE_UNCONFIRMED_POLICY``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from knocktwice_worker.database.test_rows import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.config import Settings

#: The span of pushes that is examined.
SPAN = timedelta(days=7)
#: An hour is counted when its pushes have had this long to be confirmed, and once more after a day for the late ones.
_SETTLE, _AGAIN = timedelta(hours=1), timedelta(hours=24)
#: Of the current hour the pushes count that have had this long.
_SETTLE_NOW = timedelta(minutes=10)
_HOUR = timedelta(hours=1)
#: Seconds for which a worker uses the result that it has read.
_FRESH_S = 60.0

Kind = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KindHealth:
    """The outcomes of the pushes to one kind of device in the last seven days.

    Attributes:
        pushes: those that FCM took.
        delivered: of them, reported as delivered.
        confirmed: of them, reported as delivered or clicked.
        silent: whether one can say that it never reports deliveries.
    """

    platform: str
    app_version: str
    pushes: int
    delivered: int
    confirmed: int
    silent: bool

    @property
    def share(self) -> float:
        """The share of its pushes that were ever confirmed."""
        return self.confirmed / self.pushes if self.pushes else 0.0


# A push counts only if the provider took it.
_PUSHED_TO = text("""
SELECT DISTINCT
  a.notification_id,
  coalesce(d.platform, 'unknown') AS platform,
  coalesce(d.app_version, '') AS app_version
FROM attempts a
LEFT JOIN devices d ON d.registration = a.registration
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'sent'
""")


class SilentKinds:
    """The kinds of devices that never report deliveries, as a worker knows them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: frozenset[Kind] = frozenset()
        self._until = 0.0

    def among(self, conn: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
        """Return those of these notifications whose push went to silent kinds only, each with these kinds' names."""
        silent = self._current(conn)
        if not silent or not ids:
            return {}
        kinds: dict[str, list[Kind]] = {}
        for row in conn.execute(_PUSHED_TO, {"ids": list(ids)}):
            kinds.setdefault(str(row.notification_id), []).append((row.platform, row.app_version))
        return {id_: sorted(map(" ".join, own)) for id_, own in kinds.items() if silent.issuperset(own)}

    def _current(self, conn: Connection) -> frozenset[Kind]:
        if time.monotonic() >= self._until:
            kinds = examine(conn, self._settings)
            self._known = frozenset((k.platform, k.app_version) for k in kinds if k.silent)
            self._until = time.monotonic() + _FRESH_S
        return self._known


_KINDS = text("""
SELECT
  platform,
  app_version,
  sum(pushes) AS pushes,
  sum(delivered) AS delivered,
  sum(confirmed) AS confirmed
FROM receipt_health
WHERE hour > knocktwice_now() - :span
GROUP BY 1, 2
ORDER BY sum(pushes) DESC, 1, 2
""")


def examine(conn: Connection, settings: Settings) -> list[KindHealth]:
    """Return every kind of device that was pushed to in the last seven days, the most frequent first."""
    return [
        KindHealth(
            row.platform,
            row.app_version,
            int(row.pushes),
            int(row.delivered),
            int(row.confirmed),
            silent=row.pushes >= settings.unconfirmed_sample
            and row.delivered < settings.unconfirmed_share * int(row.pushes),
        )
        for row in conn.execute(_KINDS, {"span": SPAN})
    ]


# The current hour may be counted in part, so the table itself does not say which hours are done.
_DONE = text("""
SELECT
  knocktwice_now() AS now,
  (SELECT seen_until FROM followers WHERE name = 'receipts') AS done
""")
_NOTE_DONE = text("""
INSERT INTO followers (
  name,
  seen_until
)
VALUES (
  'receipts',
  :until
)
ON CONFLICT (name) DO UPDATE SET seen_until = greatest(followers.seen_until, excluded.seen_until)
""")
_NOW = text("SELECT knocktwice_now()")

_FORGET = text("DELETE FROM receipt_health WHERE hour < knocktwice_now() - 5 * CAST(:span AS interval)")

# Ids are UUIDv7: an hour is a range of them. A receipt that names no device speaks for all of its notification's.
# PostgreSQL expects one row of any range of ids, and would compare each push with each receipt of the hour; LATERAL
# keeps it to the primary key, one push after another.
_ROLL_UP = text(f"""
INSERT INTO receipt_health AS h (
  hour,
  platform,
  app_version,
  pushes,
  delivered,
  confirmed
)
SELECT
  :hour,
  coalesce(d.platform, 'unknown'),
  coalesce(d.app_version, ''),
  count(*),
  count(*) FILTER (WHERE r.delivered),
  count(*) FILTER (WHERE r.delivered IS NOT NULL)
FROM attempts a
LEFT JOIN devices d ON d.registration = a.registration
CROSS JOIN LATERAL (
  SELECT bool_or(e.kind = 'delivered') AS delivered
  FROM events e
  WHERE e.notification_id = a.notification_id
    AND e.registration IN (a.registration, '')
    AND e.kind IN ('delivered', 'clicked')
    AND e.step = 0
) r
WHERE a.notification_id >= :low AND a.notification_id < :high AND a.state = 'sent'
  AND a.provider_id IS DISTINCT FROM '{STAND_IN}'
GROUP BY 2, 3
ORDER BY 2, 3
ON CONFLICT (hour, platform, app_version) DO UPDATE SET
  pushes = excluded.pushes,
  delivered = excluded.delivered,
  confirmed = excluded.confirmed
""")


def roll_up(engine: Engine) -> int:
    """Count the hours that are due, each in its own transaction; return how many. A repeat is harmless."""
    with engine.connect() as conn:
        now, done = conn.execute(_DONE).one()
        conn.execute(_FORGET, {"span": SPAN})
        conn.commit()
    hours = _due(now, done)
    for hour in hours:
        with engine.begin() as conn:
            conn.execute(_ROLL_UP, _bounds(hour, hour + _HOUR))
            conn.execute(_NOTE_DONE, {"until": hour + _HOUR})
    return len(hours)


def count_current(engine: Engine) -> None:
    """Count the current hour's pushes that are some minutes old, so that a new release is known the same morning."""
    with engine.begin() as conn:
        until: datetime = conn.execute(_NOW).scalar_one() - _SETTLE_NOW
        conn.execute(_ROLL_UP, _bounds(_full_hour(until), until))


def _due(now: datetime, done: datetime | None) -> list[datetime]:
    end = _full_hour(now - _SETTLE)
    start = _full_hour(now - SPAN) if done is None else max(done, _full_hour(now - SPAN))
    fresh = [start + n * _HOUR for n in range(max(0, (end - start) // _HOUR))]
    again = _full_hour(now - _AGAIN) - _HOUR
    return fresh if again in fresh else [again, *fresh]


def _full_hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _bounds(hour: datetime, until: datetime) -> Mapping[str, object]:
    low, high = (UUID(int=int(at.timestamp() * 1000) << 80) for at in (hour, until))
    return {"hour": hour, "low": low, "high": high}
