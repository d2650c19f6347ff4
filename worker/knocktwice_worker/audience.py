"""People, their devices and phones. Changes carry the time they happened; the latest wins, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import AudienceChange, DeviceRegistered, DeviceUnregistered, PhoneBound

if TYPE_CHECKING:
    from collections.abc import Sequence

_USERS = text("INSERT INTO users (id) SELECT unnest(:ids) ORDER BY 1 ON CONFLICT DO NOTHING")

# A change from the future comes from a wrong clock; taken at its word it would shut out all others until then.
_REGISTER = text("""
INSERT INTO devices AS d (registration, user_id, platform, notifications_enabled, locale, time_zone, app_version,
                          changed_at, last_seen_at)
SELECT :registration, :user, :platform, :enabled, :locale, :time_zone, :app_version, at, at
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (registration) DO UPDATE SET
  user_id = excluded.user_id, platform = excluded.platform, notifications_enabled = excluded.notifications_enabled,
  locale = excluded.locale, time_zone = excluded.time_zone, app_version = excluded.app_version,
  changed_at = excluded.changed_at, last_seen_at = excluded.last_seen_at
WHERE d.changed_at <= excluded.changed_at
""")

_UNREGISTER = text("""
INSERT INTO devices AS d (registration, user_id, changed_at, last_seen_at)
SELECT :registration, NULL, at, at FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (registration) DO UPDATE SET user_id = NULL, changed_at = excluded.changed_at
WHERE d.changed_at <= excluded.changed_at
""")

_BIND = text("""
INSERT INTO phones AS p (user_id, number, changed_at)
SELECT :user, :number, least(CAST(:at AS timestamptz), knocktwice_now())
ON CONFLICT (user_id) DO UPDATE SET number = excluded.number, changed_at = excluded.changed_at
WHERE p.changed_at <= excluded.changed_at
""")

# A receipt whose notification never came, and traces of logouts that no late "register" can still contradict.
_FORGET = (
    text("""
    DELETE FROM events e WHERE received_at < knocktwice_now() - interval '31 days'
      AND NOT EXISTS (SELECT FROM notifications n WHERE n.id = e.notification_id)
    """),
    text("DELETE FROM devices WHERE user_id IS NULL AND changed_at < knocktwice_now() - interval '90 days'"),
    text("DELETE FROM phones WHERE number IS NULL AND changed_at < knocktwice_now() - interval '90 days'"),
)


def forget(conn: Connection) -> int:
    """Delete what nobody can need any more, and return how many rows that was."""
    return sum(conn.execute(statement).rowcount for statement in _FORGET)


def apply(conn: Connection, changes: Sequence[AudienceChange]) -> None:
    """Apply changes, each only if nothing newer is known about its device or phone.

    A registration has one owner: registering it for another user moves it there.
    """
    people = sorted({c.user for c in changes if isinstance(c, DeviceRegistered | PhoneBound)})
    if people:
        conn.execute(_USERS, {"ids": people})
    registered = [_registered(c) for c in changes if isinstance(c, DeviceRegistered)]
    unregistered = [{"registration": c.registration, "at": c.at} for c in changes if isinstance(c, DeviceUnregistered)]
    bound = [{"user": c.user, "number": c.phone, "at": c.at} for c in changes if isinstance(c, PhoneBound)]
    # In one order everywhere, so that two batches about the same devices wait for each other instead of deadlocking.
    for statement, rows, key in (
        (_REGISTER, registered, "registration"),
        (_UNREGISTER, unregistered, "registration"),
        (_BIND, bound, "user"),
    ):
        if rows:
            conn.execute(statement, sorted(rows, key=lambda row: (row[key], row["at"])))


def _registered(change: DeviceRegistered) -> dict[str, object]:
    return {
        "registration": change.registration,
        "user": change.user,
        "platform": change.platform,
        "enabled": change.notifications_enabled,
        "locale": change.locale,
        "time_zone": change.time_zone,
        "app_version": change.app_version,
        "at": change.at,
    }
