"""A person, as the tables know them: devices, number, consent, opt-out and tags; and who has a number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime  # noqa: TC003 - the gateway describes these types
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Characters of a registration that are shown of a masked one: enough to tell a person's devices apart.
_ENDING = 6
#: Most people of one number that are listed.
SAME_NUMBER_LIMIT = 100
#: Devices up to which all are counted.
_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class Device:
    """An installation of the app.

    Attributes:
        registration: FCM's address of it.
        registered_at: since when, or since which change, it is the person's.
        last_seen_at: when it was registered or reported something last, to the day.
    """

    registration: str
    platform: str | None
    notifications_enabled: bool
    locale: str | None
    time_zone: str | None
    app_version: str | None
    registered_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Consent:
    """Whether a person agrees to marketing by SMS, who said so, and when; ``None``: nobody said anything."""

    granted: bool
    source: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A person.

    Attributes:
        user: the application's id.
        phone: the number in E.164; ``None``: there is none.
        country: of the number, as ISO 3166 has it.
        opted_out: whether the number asked not to be texted.
        opted_out_of: the channels over which it asked not to be texted.
        locale, time_zone: what the application said of the person, not of a device.
    """

    user: str
    devices: Sequence[Device]
    phone: str | None
    country: str | None
    opted_out: bool
    opted_out_of: tuple[str, ...]
    consent: Consent
    tags: Mapping[str, Any]
    locale: str | None
    time_zone: str | None
    created_at: datetime

    @property
    def masked(self) -> Profile:
        """The same without what reaches the person: the number, the registrations, and where consent was given."""
        return replace(
            self,
            devices=[replace(one, registration=ending(one.registration)) for one in self.devices],
            phone=None if self.phone is None else f"{self.phone[:5]}•••{self.phone[-2:]}",
            consent=replace(self.consent, source=None),
        )


def is_storable(id_: str) -> bool:
    """Whether PostgreSQL can hold an id: it takes neither NUL nor half a surrogate pair, so nobody has such an id."""
    return "\0" not in id_ and id_.encode(errors="replace").decode() == id_


def ending(registration: str) -> str:
    """Return the ending of a registration, by which a person's devices can be told apart and not reached."""
    return f"…{registration[-_ENDING:]}"


_PERSON = text("""
SELECT
  u.id,
  u.tags,
  u.locale,
  u.time_zone,
  u.created_at,
  p.number,
  p.region,
  p.consented_at,
  p.consent_source,
  p.consent_changed_at,
  o.number IS NOT NULL AS opted_out,
  ARRAY(SELECT c.channel FROM channel_opt_outs c WHERE c.number = p.number ORDER BY c.channel) AS opted_out_of
FROM users u
LEFT JOIN phones p ON p.user_id = u.id
LEFT JOIN opt_outs o ON o.number = p.number
WHERE u.id = :user
""")


def find(conn: Connection, user: str) -> Profile | None:
    """Return a person; ``None``: there is nobody of this id. What was accepted a moment ago may not be written yet."""
    if not is_storable(user):
        return None
    row = conn.execute(_PERSON, {"user": user}).first()
    if row is None:
        return None
    return Profile(
        user=row.id,
        devices=devices(conn, user),
        phone=row.number,
        country=row.region,
        opted_out=row.opted_out,
        opted_out_of=tuple(row.opted_out_of),
        consent=Consent(row.consented_at is not None, row.consent_source, row.consent_changed_at),
        tags=row.tags,
        locale=row.locale,
        time_zone=row.time_zone,
        created_at=row.created_at,
    )


_DEVICES = text("""
SELECT
  registration,
  platform,
  notifications_enabled,
  locale,
  time_zone,
  app_version,
  changed_at,
  last_seen_at
FROM devices
WHERE user_id = :user
ORDER BY last_seen_at DESC, registration
""")


def devices(conn: Connection, user: str) -> list[Device]:
    """Return a person's devices, the last used first."""
    return [Device(*row) for row in conn.execute(_DEVICES, {"user": user}).all()]


_WITH_NUMBER = text("SELECT user_id FROM phones WHERE number = :number ORDER BY user_id LIMIT :limit")


def with_number(conn: Connection, number: str) -> list[str]:
    """Return who has a number in E.164, at most :data:`SAME_NUMBER_LIMIT`, by id."""
    return [row.user_id for row in conn.execute(_WITH_NUMBER, {"number": number, "limit": SAME_NUMBER_LIMIT})]


_OWNER = text("SELECT user_id FROM devices WHERE registration = :registration")


def owner(conn: Connection, registration: str) -> str | None:
    """Return whose a device is now; ``None``: nobody's, or it is not known."""
    found: str | None = conn.execute(_OWNER, {"registration": registration}).scalar_one_or_none()
    return found


_PAGE = text("""
SELECT
  user_id,
  registration
FROM devices
WHERE user_id IS NOT NULL
ORDER BY registration
LIMIT :limit
OFFSET :offset
""")
_DEVICES_COUNT = text("SELECT count(*) FROM (SELECT FROM devices WHERE user_id IS NOT NULL LIMIT :most) bounded")


def page_of_devices(conn: Connection, limit: int, offset: int) -> tuple[list[tuple[str, str]], int]:
    """Return a page of all devices, as user and registration, and how many there are (up to 100,000)."""
    rows = conn.execute(_PAGE, {"limit": limit, "offset": offset})
    count = int(conn.execute(_DEVICES_COUNT, {"most": _COUNTED}).scalar_one())
    return [(row.user_id, row.registration) for row in rows], count
