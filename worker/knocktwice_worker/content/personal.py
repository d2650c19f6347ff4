"""The person in a text: ``{{ user.tags.city }}``, ``{{ user.id }}``, ``{{ user.locale }}`` and ``{{ user.timezone }}``.

What is known of a person is looked up once, when a batch is accepted, and kept with the notification's own values: a
push that is made again and the SMS of the next day say the same. Only the fields that the texts use are kept. An
erasure removes them with all values of the person's notifications.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Recipient
from knocktwice_shared.messages.values import PERSON, PERSON_FIELDS
from knocktwice_worker.content import addresses, rendering
from knocktwice_worker.content.liquid import BrokenTemplate, paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from knocktwice_shared.messages import Push, Step

#: The stand-in for what is known of a person, where a text is checked for nobody. As a number, a text and a date it
#: works with every filter.
_SOME_VALUE = "1"


@dataclass(frozen=True, slots=True)
class Used:
    """The fields of a person that texts use.

    Attributes:
        fields: of :data:`~knocktwice_shared.messages.notifications.PERSON_FIELDS`.
        tags: the names of the tags; ``None``: which ones is only known when a text is filled in, so all.
    """

    fields: frozenset[str]
    tags: frozenset[str] | None

    def of(self, person: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of what is known of a person that the texts use."""
        told = {name: value for name, value in person.items() if name in self.fields and name != "tags"}
        if "tags" in self.fields:
            tags = person.get("tags", {})
            told["tags"] = {name: value for name, value in tags.items() if self.tags is None or name in self.tags}
        return told

    def stand_in(self, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return values in which every field is there, for a check.

        Args:
            tags: values of some tags; the others are the stand-in.
        """
        person: dict[str, Any] = dict.fromkeys(self.fields - {"tags"}, _SOME_VALUE)
        return {PERSON: {**person, "tags": {**dict.fromkeys(self.tags or (), _SOME_VALUE), **(tags or {})}}}


#: All that texts can use.
EVERYTHING = Used(frozenset(PERSON_FIELDS), None)


def used(texts: Iterable[str]) -> Used | None:
    """Return which fields of a person texts use; ``None``: they use none."""
    found: set[tuple[str, ...]] = set()
    for one in texts:
        if PERSON in one:
            found |= _used_in(one)
    if not found:
        return None
    tags = {path[1:2] for path in found if path[0] == "tags"}
    return Used(frozenset(path[0] for path in found), None if () in tags else frozenset(tag for (tag,) in tags))


def union(many: Iterable[Used]) -> Used:
    """Return what any of these texts use."""
    each = list(many)
    every = any(one.tags is None for one in each)
    tags = None if every else frozenset(tag for one in each for tag in one.tags or ())
    return Used(frozenset(field for one in each for field in one.fields), tags)


def texts_of(contents: Iterable[tuple[Push | None, str | None]], plan: Iterable[Step]) -> Iterable[str]:
    """Yield every text of contents and steps that is filled in."""
    for push, sms_text in contents:
        if push is not None:
            yield from (one for _, one in push.texts())
        if sms_text is not None:
            yield sms_text
    for step in plan:
        yield from (one for _, one in step.filled())


def check(texts: Iterable[tuple[str, str]], params: Mapping[str, Any], person: Used) -> None:
    """Fill in texts that use a person, for nobody in particular.

    Args:
        texts: fields and their texts.
        params: the values that are known.
        person: what the texts use of the person.

    Raises:
        InvalidMessage: a parameter is missing, or a text is broken; the field is named.
    """
    values = {**person.stand_in(), **params}
    for field, one in texts:
        rendering.fill_in(field, one, values, address=addresses.is_address(one))


# The same order as where a text's language and a person's quiet hours are looked up: for the language the application's
# word counts, and for the zone the device's, because it knows where it is.
_PEOPLE = text("""
SELECT
  asked.user_id,
  asked.registration,
  coalesce(u.locale, asked.locale, l.locale) AS locale,
  coalesce(z.time_zone, u.time_zone) AS timezone,
  (
    SELECT jsonb_object_agg(t.key, t.value) FROM jsonb_each(u.tags) t
    WHERE CAST(:tags AS text[]) IS NULL OR t.key = ANY(CAST(:tags AS text[]))
  ) AS tags
FROM (
  SELECT unnest(CAST(:users AS text[])) AS user_id, NULL AS registration, NULL AS locale
  UNION ALL
  SELECT user_id, registration, locale FROM devices WHERE registration = ANY(:registrations)
) asked
JOIN users u ON u.id = asked.user_id
LEFT JOIN LATERAL (
  SELECT locale FROM devices WHERE user_id = u.id AND locale IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
) l ON true
LEFT JOIN LATERAL (
  SELECT time_zone FROM devices WHERE user_id = u.id AND time_zone IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
) z ON true
""")


def find(conn: Connection, recipients: Sequence[Recipient], person: Used) -> dict[str, dict[str, Any]]:
    """Return notification id → what is known of its person, of those that have one. One query.

    Registrations without a number are their owner's: the first of them that has one.

    Args:
        recipients: of the notifications.
        person: what their texts use.
    """
    users = sorted({r.user for r in recipients if r.user is not None})
    registrations = sorted({one for r in recipients if r.phone is None for one in r.registrations})
    if not users and not registrations:
        return {}
    tags = None if person.tags is None else sorted(person.tags)
    found = conn.execute(_PEOPLE, {"users": users, "registrations": registrations, "tags": tags}).all()
    by_user = {row.user_id: row for row in found if row.registration is None}
    by_registration = {row.registration: row for row in found if row.registration is not None}
    known: dict[str, dict[str, Any]] = {}
    for r in recipients:
        own = (
            None
            if r.phone is not None
            else next((by_registration[o] for o in r.registrations if o in by_registration), None)
        )
        row = own if r.user is None else by_user.get(r.user)
        if row is None and r.user is None:
            continue
        # A user about whom nothing was said yet has an id all the same.
        told = {
            "id": row.user_id if row else r.user,
            "locale": r.locale or (row.locale if row else None),
            "timezone": row.timezone if row else None,
        }
        tags_of = (row.tags if row else None) or {}
        known[str(r.id)] = {**{name: value for name, value in told.items() if value is not None}, "tags": tags_of}
    return known


def of_user(conn: Connection, user: str, person: Used) -> dict[str, Any]:
    """Return what is known of one user, as :func:`find` does."""
    nobody = UUID(int=0)
    return find(conn, [Recipient(user=user, id=nobody)], person)[str(nobody)]


# The value that takes most bytes makes the longest text, and often decides its encoding, too.
_LONGEST = text("""
SELECT wanted.name, (
  SELECT u.tags -> wanted.name FROM users u
  WHERE u.tags ? wanted.name ORDER BY octet_length(u.tags ->> wanted.name) DESC LIMIT 1
) AS value
FROM (SELECT unnest(CAST(:tags AS text[])) AS name) wanted
""")


def longest(conn: Connection, person: Used) -> dict[str, Any]:
    """Return the longest value that anybody has, for each tag that texts use by its name."""
    if not person.tags:
        return {}
    found = conn.execute(_LONGEST, {"tags": sorted(person.tags)})
    return {row.name: row.value for row in found if row.value is not None}


@lru_cache(maxsize=4_000)
def _used_in(one: str) -> frozenset[tuple[str, ...]]:
    """Return the fields of a person in a text, as (field,), ("tags", name), or ("tags",) for all tags."""
    try:
        found = paths(one, PERSON)
    except BrokenTemplate:
        # It is refused by its own name when it is filled in.
        return frozenset()
    used_here: set[tuple[str, ...]] = set()
    for path in found:
        match path:
            case [str(field)] if field in PERSON_FIELDS:
                used_here.add((field,))
            case ["tags", str(name), *_]:
                used_here.add(("tags", name))
            case ["tags", *_]:
                used_here.add(("tags",))
            case []:
                used_here |= {(field,) for field in PERSON_FIELDS}
            case _:
                pass
    return frozenset(used_here)
