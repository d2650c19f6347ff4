"""Names that another product's apps give their installations (Pushwoosh's ``hwid``), and whose devices they are.

Applications that come from there name devices so, also where they know no registration. A phone number that stands for
a device is not kept here: whose it is stands in ``phones``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: Longest name, in characters.
LIMIT = 200


class Named(NamedTuple):
    """A device by its name. ``registration`` is ``None`` where the name is a phone number."""

    user: str
    registration: str | None


_NAME = text("""
INSERT INTO hwids (
  hwid,
  registration,
  user_id
) VALUES (
  :hwid,
  :registration,
  :user
)
ON CONFLICT (hwid) DO UPDATE SET
  registration = excluded.registration,
  user_id = excluded.user_id,
  changed_at = excluded.changed_at
""")


def name(conn: Connection, hwid: str, *, user: str, registration: str) -> None:
    """Remember whose device a name stands for from now on."""
    conn.execute(_NAME, {"hwid": hwid, "user": user, "registration": registration})


_NAME_NEW = text(f"""
INSERT INTO hwids (hwid, registration, user_id)
SELECT hwid, registration, user_id
FROM {rows("r", hwid="text", registration="text", user_id="text")}
ORDER BY hwid
ON CONFLICT DO NOTHING
""")


def name_new(conn: Connection, named: Mapping[str, tuple[str, str]]) -> None:
    """Remember whose devices names stand for, of names that are not known yet: what an app has said since counts.

    Args:
        named: hwid → registration and user.
    """
    if named:
        registrations, users = zip(*named.values(), strict=True)
        lists = {"hwid": list(named), "registration": list(registrations), "user_id": list(users)}
        conn.execute(_NAME_NEW, lists)


_FIND = text("""
SELECT
  hwid,
  user_id,
  registration
FROM hwids
WHERE hwid = ANY(:names)
UNION ALL
SELECT
  number,
  min(user_id),
  NULL
FROM phones
WHERE number = ANY(:names)
GROUP BY number
HAVING count(*) = 1
""")


def find(conn: Connection, names: Sequence[str]) -> dict[str, Named]:
    """Return the devices that have a name, and the people who alone have a number.

    Args:
        names: hwids, and numbers in E.164.
    """
    found = conn.execute(_FIND, {"names": list(names)})
    return {row.hwid: Named(row.user_id, row.registration) for row in found}


# A worker writes a device later than this interface says whose it is; whichever was said last counts.
_OWNERS = text(f"""
SELECT
  r.registration,
  CASE
    WHEN h.changed_at > coalesce(greatest(d.changed_at, d.left_at), '-infinity') THEN h.user_id
    ELSE d.user_id
  END AS user_id
FROM {rows("r", hwid="text", registration="text")}
LEFT JOIN hwids h ON h.hwid = r.hwid
LEFT JOIN devices d ON d.registration = r.registration
""")


def owners(conn: Connection, named: Mapping[str, str]) -> dict[str, str]:
    """Return whose devices registrations are, by what their names stand for or by the devices themselves.

    Args:
        named: hwid → registration.

    Returns:
        Registration → user; devices of nobody are left out.
    """
    found = conn.execute(_OWNERS, {"hwid": list(named), "registration": list(named.values())})
    return {row.registration: row.user_id for row in found if row.user_id is not None}


_DROP = text("DELETE FROM hwids WHERE hwid = :hwid")


def drop(conn: Connection, hwid: str) -> None:
    """Forget a name."""
    conn.execute(_DROP, {"hwid": hwid})


_DROP_OF = text("DELETE FROM hwids WHERE user_id = :user AND starts_with(hwid, :prefix)")


def drop_of(conn: Connection, user: str, prefix: str) -> None:
    """Forget the names of a person's devices that begin with ``prefix``."""
    conn.execute(_DROP_OF, {"user": user, "prefix": prefix})


_FORGET_USER = text("DELETE FROM hwids WHERE user_id = :user AND changed_at <= :until")


def forget_user(conn: Connection, user: str, until: datetime) -> None:
    """Forget the names of a person's devices, those that were given until then."""
    conn.execute(_FORGET_USER, {"user": user, "until": until})


# Devices are written by workers, later than their names.
_FORGET_UNUSED = text("""
DELETE FROM hwids h
WHERE h.changed_at < knocktwice_now() - interval '1 day'
  AND NOT EXISTS (SELECT FROM devices d WHERE d.registration = h.registration)
""")


def forget_unused(conn: Connection) -> int:
    """Forget names of devices that are not there any more, and return how many."""
    return conn.execute(_FORGET_UNUSED).rowcount
