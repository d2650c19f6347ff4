"""Tags, language and time zone of people, as the application says them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import locale_and_zone
from knocktwice_worker.audience.forgetting import TRACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import TagsSet

#: The most tags of one user, and their greatest size as JSON. Larger tags would burden GIN indexes and readers.
TAGS_LIMIT, TAGS_BYTES_LIMIT = 250, 16_384
#: Most names of tags that one user has or had, while a late message about a removed one may still come.
TAG_NAMES_LIMIT = 1_000

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


def describe(conn: Connection, changes: Sequence[TagsSet]) -> None:
    """Note what is said about users, tag by tag, each only if nothing newer is known of it."""
    if changes:
        conn.execute(_DESCRIBE, [_described(c) for c in sorted(changes, key=lambda c: (c.user, c.at))])


def _described(change: TagsSet) -> dict[str, object]:
    fields: dict[str, object] = {f"tags.{name}": value for name, value in change.tags.items()}
    where = (("locale", locale_and_zone.locale(change.locale)), ("time_zone", locale_and_zone.zone(change.time_zone)))
    fields |= {name: value for name, value in where if value is not None}
    return {"user": change.user, "fields": json.dumps(fields), "at": change.at}


_TAGS_SIZE = text("""
SELECT
  (SELECT count(*) FROM jsonb_object_keys(tags)) AS tags,
  octet_length(CAST(tags AS text)) AS bytes,
  (SELECT count(*) FROM jsonb_object_keys(field_times)) AS names
FROM users
WHERE id = ANY(:users)
ORDER BY id
""")


def require_bounded(conn: Connection, users: Sequence[str]) -> None:
    """Check the tags that users have now.

    Raises:
        InvalidMessage: a user has too many, too large ones, or has had too many names of tags lately.
    """
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
