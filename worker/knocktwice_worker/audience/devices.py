"""Devices: whose they are, and what their apps say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.audience import locale_and_zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import DeviceRegistered, DeviceUnregistered, LoggedOutEverywhere

#: What a registration may say of its device: parameter → column. What it does not say stays.
_SAID = {
    "platform": "platform",
    "enabled": "notifications_enabled",
    "locale": "locale",
    "time_zone": "time_zone",
    "app_version": "app_version",
}
#: Whether nothing newer was said of a field of the device ``d``. Of a row without times, all is as old as its last
#: change.
_NEWEST = """coalesce(
  coalesce(CAST(d.field_times ->> {} AS timestamptz), CASE WHEN d.field_times IS NULL THEN d.changed_at END)
    <= excluded.changed_at,
  true
)"""
_SAYS = ",\n    ".join(
    f"'{column}', CASE WHEN CAST(:{name} AS text) IS NOT NULL THEN at END" for name, column in _SAID.items()
)
_TAKE = ",\n  ".join(
    f"{column} = CASE\n"
    f"    WHEN excluded.field_times ? '{column}' AND {_NEWEST.format(repr(column))} THEN excluded.{column}\n"
    f"    ELSE d.{column}\n"
    "  END"
    for column in _SAID.values()
)

# A change from the future comes from a wrong clock; taken at its word it would shut out all others until then.
# A registration that is older than a logout of the same person, from this device or from all, arrives late: the device
# is nobody's then, because the registration did end the ownership of anybody before.
# Changes that overtake each other may say different things, so each field has the time at which it was said.
_REGISTER = text(f"""
INSERT INTO devices AS d (
  registration,
  user_id,
  platform,
  notifications_enabled,
  locale,
  time_zone,
  app_version,
  changed_at,
  last_seen_at,
  field_times
)
SELECT
  :registration,
  CASE WHEN coalesce(CAST(u.field_times ->> 'devices' AS timestamptz) <= at, true) THEN u.id END,
  :platform,
  coalesce(CAST(:enabled AS boolean), true),
  :locale,
  :time_zone,
  :app_version,
  at,
  at,
  jsonb_strip_nulls(jsonb_build_object(
    {_SAYS}
  ))
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
JOIN users u ON u.id = :user
ON CONFLICT (registration) DO UPDATE SET
  user_id = CASE
    WHEN d.changed_at > excluded.changed_at THEN d.user_id
    WHEN d.left_user = :user AND d.left_at > excluded.changed_at THEN NULL
    ELSE excluded.user_id
  END,
  {_TAKE},
  changed_at = greatest(d.changed_at, excluded.changed_at),
  last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
  field_times = coalesce(d.field_times, '{{}}') || (
    SELECT coalesce(jsonb_object_agg(f.name, f.at), '{{}}')
    FROM jsonb_each(excluded.field_times) AS f(name, at)
    WHERE {_NEWEST.format("f.name")}
  )
""")


def register(conn: Connection, changes: Sequence[DeviceRegistered]) -> None:
    """Give devices to their users, and note what the apps say. A device that was somebody else's moves."""
    if changes:
        conn.execute(_REGISTER, [_registered(c) for c in sorted(changes, key=lambda c: (c.registration, c.at))])


def _registered(change: DeviceRegistered) -> dict[str, object]:
    return {
        "registration": change.registration,
        "user": change.user,
        "platform": change.platform,
        "enabled": change.notifications_enabled,
        "locale": locale_and_zone.locale(change.locale),
        "time_zone": locale_and_zone.zone(change.time_zone),
        "app_version": change.app_version,
        "at": change.at,
    }


# The row stays as a trace, so that a "register" from before the logout and arriving after it changes nothing.
_UNREGISTER = text("""
INSERT INTO devices AS d (
  registration,
  user_id,
  changed_at,
  last_seen_at
)
SELECT
  :registration,
  NULL,
  at,
  at
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (registration) DO UPDATE SET
  user_id = NULL,
  changed_at = excluded.changed_at
WHERE d.changed_at <= excluded.changed_at
""")

# A logout of one person says nothing about the next owner of the device, so changed_at stays that of the registration:
# a registration of the next owner from before this logout may still be on its way.
_LEAVE = text("""
INSERT INTO devices AS d (
  registration,
  user_id,
  changed_at,
  last_seen_at,
  left_user,
  left_at
)
SELECT
  :registration,
  NULL,
  to_timestamp(0),
  at,
  :user,
  at
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (registration) DO UPDATE SET
  user_id = CASE WHEN d.user_id = excluded.left_user AND d.changed_at <= excluded.left_at THEN NULL ELSE d.user_id END,
  left_user = CASE WHEN coalesce(d.left_at <= excluded.left_at, true) THEN excluded.left_user ELSE d.left_user END,
  left_at = greatest(d.left_at, excluded.left_at)
""")


def unregister(conn: Connection, changes: Sequence[DeviceUnregistered]) -> None:
    """Take devices from the user who logs out; from whoever has them, if no user is named."""
    ordered = sorted(changes, key=lambda c: (c.registration, c.at))
    if nobodys := [{"registration": c.registration, "at": c.at} for c in ordered if c.user is None]:
        conn.execute(_UNREGISTER, nobodys)
    if left := [{"registration": c.registration, "user": c.user, "at": c.at} for c in ordered if c.user is not None]:
        conn.execute(_LEAVE, left)


# The time is kept with the person, so that a registration from before it and arriving after it changes nothing.
_LEAVE_ALL = (
    text("""
    UPDATE users SET
      field_times = field_times || jsonb_build_object(
        'devices',
        greatest(CAST(field_times ->> 'devices' AS timestamptz), least(CAST(:at AS timestamptz), knocktwice_now()))
      )
    WHERE id = :user
    """),
    text("""
    WITH theirs AS (
      SELECT registration
      FROM devices
      WHERE user_id = :user AND changed_at <= CAST(:at AS timestamptz)
      ORDER BY registration
      FOR UPDATE
    )
    UPDATE devices d SET
      user_id = NULL,
      left_user = :user,
      left_at = greatest(d.left_at, least(CAST(:at AS timestamptz), knocktwice_now()))
    FROM theirs
    WHERE d.registration = theirs.registration AND d.user_id = :user
    """),
)


def log_out_everywhere(conn: Connection, changes: Sequence[LoggedOutEverywhere]) -> None:
    """Take all their devices from users."""
    for change in sorted(changes, key=lambda c: (c.user, c.at)):
        for statement in _LEAVE_ALL:
            conn.execute(statement, {"user": change.user, "at": change.at})
