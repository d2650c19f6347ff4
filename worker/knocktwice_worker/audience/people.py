"""People, their devices, phones, tags and consent.

Changes carry the time they happened; the latest wins, in whatever order they come.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import (
    AudienceChange,
    ConsentSet,
    DeviceRegistered,
    DeviceUnregistered,
    LoggedOutEverywhere,
    OptOutSet,
    PhoneBound,
    TagsSet,
    UserErased,
)
from knocktwice_worker.audience import hwids
from knocktwice_worker.content import locales
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notation import phone_numbers, time_zones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import ReceiptEvent

log = structlog.get_logger(__name__)

_DECORATED = re.compile(r"[#.@]")
#: The most tags of one user, and their greatest size as JSON. Larger tags would burden GIN indexes and readers.
TAGS_LIMIT, TAGS_BYTES_LIMIT = 250, 16_384
#: Most names of tags that one user has or had, while a late message about a removed one may still come.
TAG_NAMES_LIMIT = 1_000
#: How long traces of what is no more are kept: no late message can contradict it any more.
TRACE = timedelta(days=90)

# Traces of logouts that no late "register" can still contradict.
_FORGET = (
    text("""
    DELETE FROM devices
    WHERE user_id IS NULL AND greatest(changed_at, left_at) < knocktwice_now() - interval '90 days'
    """),
    text("""
    DELETE FROM phones
    WHERE number IS NULL
      AND consented_at IS NULL
      AND greatest(changed_at, consent_changed_at) < knocktwice_now() - interval '90 days'
    """),
)

_FORGET_ERASED = text("DELETE FROM erasures WHERE noted_at < knocktwice_now() - :trace")

_FORGET_STALE = text("DELETE FROM devices WHERE user_id IS NOT NULL AND last_seen_at < knocktwice_now() - :stale")


def forget(conn: Connection, stale: timedelta) -> int:
    """Delete rows that are not needed any more, and return how many.

    Args:
        stale: how long a device may go unseen; zero: for ever.
    """
    removed = sum(conn.execute(statement).rowcount for statement in _FORGET)
    removed += conn.execute(_FORGET_ERASED, {"trace": TRACE}).rowcount
    removed += conn.execute(_FORGET_STALE, {"stale": stale}).rowcount if stale else 0
    return removed + hwids.forget_unused(conn)


# At most once a day for each device, and never waiting for a transaction that holds its row: another receipt will come.
_SEEN = text(f"""
UPDATE devices d SET
  last_seen_at = seen.at
FROM (
  SELECT
    o.registration,
    r.at
  FROM devices o
  JOIN (
    SELECT
      registration,
      least(max(at), knocktwice_now()) AS at
    FROM {rows("s", registration="text", at="timestamptz")}
    GROUP BY registration
  ) r ON r.registration = o.registration
  WHERE o.last_seen_at < r.at - interval '1 day'
  FOR UPDATE OF o SKIP LOCKED
) seen
WHERE d.registration = seen.registration
""")


def see(conn: Connection, receipts: Sequence[ReceiptEvent]) -> None:
    """Note that the devices which sent receipts are alive, as far as the receipts name them."""
    named = [(r.registration, r.at) for r in receipts if r.registration is not None]
    if named:
        conn.execute(_SEEN, {"registration": [n for n, _ in named], "at": [at for _, at in named]})


# The row of a user who is there already is locked, though nothing about it changes: an erasure locks the person first,
# too.
_USERS = text(f"""
INSERT INTO users (id)
SELECT id
FROM {rows("r", id="text")}
ORDER BY 1
ON CONFLICT (id) DO UPDATE SET
  updated_at = users.updated_at
WHERE false
""")

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

# Consent was given for the number that was there: another number, or none, ends what was given before. That counts as a
# change of the consent, so that one given before and arriving late does not come back for the new number.
#
# Who binds a number says that it is right: what was learned of it before is forgotten.
_BIND = text("""
WITH forgotten AS (
  DELETE FROM untextable
  WHERE number = :number AND last_at <= :at
)
INSERT INTO phones AS p (
  user_id,
  number,
  region,
  changed_at
)
SELECT
  :user,
  :number,
  :region,
  least(CAST(:at AS timestamptz), knocktwice_now())
ON CONFLICT (user_id) DO UPDATE SET
  number = excluded.number,
  region = excluded.region,
  changed_at = excluded.changed_at,
  (consented_at, consent_source, consent_changed_at) = (
    SELECT
      CASE WHEN NOT ends THEN p.consented_at END,
      CASE WHEN ends THEN 'number changed' ELSE p.consent_source END,
      CASE WHEN ends THEN excluded.changed_at ELSE p.consent_changed_at END
    FROM (
      SELECT
        p.number IS NOT NULL
        AND p.number IS DISTINCT FROM excluded.number
        AND coalesce(p.consent_changed_at < excluded.changed_at, true) AS ends
    ) change
  )
WHERE p.changed_at <= excluded.changed_at
""")

# Consent may come before the number; the row then waits for it, and any number is newer than none at all.
_CONSENT = text("""
INSERT INTO phones AS p (
  user_id,
  number,
  changed_at,
  consented_at,
  consent_source,
  consent_changed_at
)
SELECT
  :user,
  NULL,
  to_timestamp(0),
  CASE WHEN :marketing THEN at END,
  :source,
  at
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (user_id) DO UPDATE SET
  consented_at = excluded.consented_at,
  consent_source = excluded.consent_source,
  consent_changed_at = excluded.consent_changed_at
WHERE coalesce(p.consent_changed_at <= excluded.consent_changed_at, true)
""")

# In one subquery of the SET, not in FROM: when another change of the same person was faster, PostgreSQL computes it
# again from the row as that one left it.
_DESCRIBE = text("""
UPDATE users u SET
  updated_at = knocktwice_now(),
  (tags, locale, time_zone, field_times) = (
    SELECT
      jsonb_strip_nulls(u.tags || coalesce(
        jsonb_object_agg(substr(f.name, 6), f.value) FILTER (WHERE starts_with(f.name, 'tags.')), '{}'
      )),
      coalesce(max(f.value #>> '{}') FILTER (WHERE f.name = 'locale'), u.locale),
      coalesce(max(f.value #>> '{}') FILTER (WHERE f.name = 'time_zone'), u.time_zone),
      (
        SELECT coalesce(jsonb_object_agg(t.key, t.value), '{}')
        FROM jsonb_each(u.field_times) AS t
        WHERE NOT starts_with(t.key, 'tags.')
          OR u.tags ? substr(t.key, 6)
          OR CAST(t.value #>> '{}' AS timestamptz) > knocktwice_now() - interval '90 days'
      ) || coalesce(jsonb_object_agg(f.name, clock.at), '{}')
    FROM jsonb_each(CAST(:fields AS jsonb)) AS f(name, value)
    WHERE coalesce(CAST(u.field_times ->> f.name AS timestamptz) <= clock.at, true)
  )
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
WHERE u.id = :user
""")


def apply(conn: Connection, changes: Sequence[AudienceChange]) -> None:
    """Apply changes, each only if nothing newer is known about its device, number, tag or consent.

    A registration has one owner: registering it for another user moves it there.
    """
    people = sorted({c.user for c in changes if not isinstance(c, DeviceUnregistered | OptOutSet | UserErased)})
    if people:
        conn.execute(_USERS, {"id": people})
    registered = [_registered(c) for c in changes if isinstance(c, DeviceRegistered)]
    unregistered = [c for c in changes if isinstance(c, DeviceUnregistered)]
    left = [{"registration": c.registration, "user": c.user, "at": c.at} for c in unregistered if c.user is not None]
    nobodys = [{"registration": c.registration, "at": c.at} for c in unregistered if c.user is None]
    left_all = [{"user": c.user, "at": c.at} for c in changes if isinstance(c, LoggedOutEverywhere)]
    bound = [_bound(c) for c in changes if isinstance(c, PhoneBound)]
    described = [_described(c) for c in changes if isinstance(c, TagsSet)]
    consents = [
        {"user": c.user, "marketing": c.marketing, "source": c.source, "at": c.at}
        for c in changes
        if isinstance(c, ConsentSet)
    ]
    # In one order everywhere, so that two batches about the same devices wait for each other instead of deadlocking.
    for statement, wanted, key in (
        (_REGISTER, registered, "registration"),
        (_UNREGISTER, nobodys, "registration"),
        (_LEAVE, left, "registration"),
        (_BIND, bound, "user"),
        (_DESCRIBE, described, "user"),
        (_CONSENT, consents, "user"),
    ):
        if wanted:
            conn.execute(statement, sorted(wanted, key=lambda row: (row[key], row["at"])))
    for one in sorted(left_all, key=lambda row: (row["user"], row["at"])):
        for statement in _LEAVE_ALL:
            conn.execute(statement, one)
    if described:
        _require_bounded_tags(conn, sorted({c.user for c in changes if isinstance(c, TagsSet)}))


_TAGS_SIZE = text("""
SELECT
  (SELECT count(*) FROM jsonb_object_keys(tags)) AS tags,
  octet_length(CAST(tags AS text)) AS bytes,
  (SELECT count(*) FROM jsonb_object_keys(field_times)) AS names
FROM users
WHERE id = ANY(:users)
ORDER BY id
""")


def _require_bounded_tags(conn: Connection, users: Sequence[str]) -> None:
    for row in conn.execute(_TAGS_SIZE, {"users": users}):
        if row.tags > TAGS_LIMIT:
            problem = f"would make {row.tags} tags of one user; {TAGS_LIMIT} at most. Remove some, by null"
        elif row.bytes > TAGS_BYTES_LIMIT:
            problem = (
                f"would make {row.bytes} bytes of tags of one user; {TAGS_BYTES_LIMIT} at most. Remove some, by null"
            )
        elif row.names > TAG_NAMES_LIMIT:
            problem = (
                f"would make {row.names} names of tags, removed ones included, of one user in "
                f"{TRACE.days} days; {TAG_NAMES_LIMIT} at most. Put what changes into the value, not into the name"
            )
        else:
            continue
        raise InvalidMessage("changes.tags", problem)


def _registered(change: DeviceRegistered) -> dict[str, object]:
    return {
        "registration": change.registration,
        "user": change.user,
        "platform": change.platform,
        "enabled": change.notifications_enabled,
        "locale": _locale(change.locale),
        "time_zone": _zone(change.time_zone),
        "app_version": change.app_version,
        "at": change.at,
    }


def _locale(said: str | None) -> str | None:
    """Return a locale without the suffixes of Java, iOS and POSIX, so that segments find its language and country."""
    return said if said is None or not _DECORATED.search(said) else locales.plain(said) or said


def _zone(said: str | None) -> str | None:
    """Return a zone by its IANA name. An unknown zone is left out: the device matters more than its clock."""
    try:
        return said and time_zones.canonical(said)
    except ValueError:
        log.warning("time zone is not known", time_zone=said)
        return None


def _bound(change: PhoneBound) -> dict[str, object]:
    number = None if change.phone is None else phone_numbers.spelled(change.phone)
    region = None if number is None else phone_numbers.country(number)
    return {"user": change.user, "number": number, "region": region, "at": change.at}


def _described(change: TagsSet) -> dict[str, object]:
    fields: dict[str, object] = {f"tags.{name}": value for name, value in change.tags.items()}
    fields |= {
        n: v for n, v in (("locale", _locale(change.locale)), ("time_zone", _zone(change.time_zone))) if v is not None
    }
    return {"user": change.user, "fields": json.dumps(fields), "at": change.at}
