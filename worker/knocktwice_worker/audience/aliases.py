"""Aliases: names that other systems have for people and their devices, so that what was stored elsewhere still works.

An application that moves in from another product keeps that product's ids in its own tables. An alias leads from such
an id to the person here, or to one device of the person. Aliases decide nothing: they are read by the faces of the
gateway, and whoever is erased loses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.audience.profile import is_storable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that another system has.

    Attributes:
        label: the kind of name, like ``onesignal_id``; together with ``value`` it names one thing.
        user: the application's own id of the person.
        registration: the device that is meant; ``None``: the person, or the person's number.
    """

    label: str
    value: str
    user: str
    registration: str | None = None


# In one order everywhere, so that two requests about the same aliases wait for each other instead of deadlocking.
_PUT = text("""
INSERT INTO aliases AS a (
  label,
  value,
  user_id,
  registration
) VALUES (
  :label,
  :value,
  :user,
  :registration
)
ON CONFLICT (label, value) DO UPDATE SET
  user_id = excluded.user_id,
  registration = excluded.registration,
  since = knocktwice_now()
WHERE a.user_id <> excluded.user_id OR a.registration IS DISTINCT FROM excluded.registration
""")


def put(conn: Connection, aliases: Iterable[Alias]) -> None:
    """Write aliases; one that is there leads to the new place from now on."""
    wanted = sorted({(one.label, one.value): one for one in aliases}.items())
    if wanted:
        conn.execute(_PUT, [_row(one) for _, one in wanted])


_FIND = text("""
SELECT
  label,
  value,
  user_id,
  registration
FROM aliases
WHERE label = :label AND value = ANY(:values)
""")


def find(conn: Connection, label: str, values: Sequence[str]) -> Mapping[str, Alias]:
    """Return value → alias, for those that are known."""
    asked = [value for value in values if is_storable(value)]
    if not asked or not is_storable(label):
        return {}
    rows = conn.execute(_FIND, {"label": label, "values": asked})
    return {row.value: Alias(row.label, row.value, row.user_id, row.registration) for row in rows}


_OF_USER = text("""
SELECT
  label,
  value,
  user_id,
  registration
FROM aliases
WHERE user_id = :user
ORDER BY label, value
""")


def of_user(conn: Connection, user: str) -> list[Alias]:
    """Return a person's aliases, by label."""
    if not is_storable(user):
        return []
    return [Alias(*row) for row in conn.execute(_OF_USER, {"user": user}).all()]


_REMOVE = text("DELETE FROM aliases WHERE label = :label AND user_id = :user AND registration IS NULL")


def remove(conn: Connection, user: str, label: str) -> bool:
    """Forget what a system calls a person, and return whether there was anything to forget."""
    if not (is_storable(user) and is_storable(label)):
        return False
    return bool(conn.execute(_REMOVE, {"label": label, "user": user}).rowcount)


# A device has the aliases of whoever registered it first; they go with whoever has it when that person is erased.
_FORGET_USER = text("""
DELETE FROM aliases
WHERE since <= :until AND (
  user_id = :user
  OR registration IN (SELECT d.registration FROM devices d WHERE d.user_id = :user AND d.changed_at <= :until)
)
""")


def forget_user(conn: Connection, user: str, until: object) -> None:
    """Forget the aliases of a person and the person's devices, as they were at a time.

    Call it before the devices go.
    """
    conn.execute(_FORGET_USER, {"user": user, "until": until})


# An alias is written before its device, whose change waits in a queue.
_FORGET_GONE = text("""
DELETE FROM aliases a
WHERE a.registration IS NOT NULL
  AND a.since < knocktwice_now() - interval '90 days'
  AND NOT EXISTS (SELECT FROM devices d WHERE d.registration = a.registration)
""")


def forget_gone(conn: Connection) -> int:
    """Forget the aliases of devices that are not there any more, and return how many."""
    return conn.execute(_FORGET_GONE).rowcount


def _row(one: Alias) -> dict[str, str | None]:
    return {"label": one.label, "value": one.value, "user": one.user, "registration": one.registration}
