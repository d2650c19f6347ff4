"""Values of one person in the texts of a blast: gathered from a file, kept while the blast runs, deleted once used.

A blast with such values notifies only the people of its segment who have some. They are gathered in a temporary table,
so a million rows need no memory of the process, and join the blast in the transaction that starts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table

from knocktwice_worker.audience import segments
from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Select

    from knocktwice_worker.audience.segment_filter import Filter


@dataclass(frozen=True, slots=True)
class Given:
    """The values of one person, as a file gives them.

    Attributes:
        line: where they stand in the file.
        user: the person; ``None``: ``phone`` says who it is.
        phone: the person's number, in E.164.
    """

    line: int
    user: str | None
    phone: str | None
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Counts:
    """The people of a file and those of a segment. ``rows`` is the sum of ``matched``, ``unknown`` and ``outside``.

    Attributes:
        rows: people of the file.
        matched: of these, those in the segment. They are notified.
        unknown: of these, those about whom nothing is known.
        outside: of these, those who are not in the segment.
        without: people of the segment who are not in the file. They are not notified.
    """

    rows: int
    matched: int
    unknown: int
    outside: int
    without: int


_GATHER = text("""
CREATE TEMP TABLE given_params (
  line integer,
  user_id text,
  phone text,
  params jsonb
) ON COMMIT DROP
""")

_ADD = text(f"""
INSERT INTO given_params (line, user_id, phone, params)
SELECT line, user_id, phone, CAST(params AS jsonb)
FROM {rows("r", line="int", user_id="text", phone="text", params="text")}
""")

_RESOLVE = text("""
UPDATE given_params g SET
  user_id = p.user_id
FROM (
  SELECT number, min(user_id) AS user_id FROM phones WHERE number IS NOT NULL GROUP BY number HAVING count(*) = 1
) p
WHERE g.user_id IS NULL AND p.number = g.phone
""")


def gather(conn: Connection) -> None:
    """Make room for values, until the end of the transaction."""
    conn.execute(_GATHER)


def add(conn: Connection, some: Sequence[Given]) -> None:
    """Take the values of some people."""
    lists = {
        "line": [one.line for one in some],
        "user_id": [one.user for one in some],
        "phone": [one.phone for one in some],
        "params": [json.dumps(one.params) for one in some],
    }
    if some:
        conn.execute(_ADD, lists)


_TWICE = text("""
SELECT line, first
FROM (
  SELECT
    line,
    min(line) OVER (PARTITION BY coalesce(user_id, phone)) AS first
  FROM given_params
) g
WHERE line > first
ORDER BY line
LIMIT :limit
""")

_SHARED = text("""
SELECT g.line
FROM given_params g
JOIN (SELECT number FROM phones WHERE number IS NOT NULL GROUP BY number HAVING count(*) > 1) p ON p.number = g.phone
WHERE g.user_id IS NULL
ORDER BY g.line
LIMIT :limit
""")


def conflicts(conn: Connection, limit: int) -> list[tuple[int, str]]:
    """Look up whose the numbers are; return the lines that are about a person twice, or about nobody in particular.

    Args:
        limit: most lines of each kind.
    """
    conn.execute(_RESOLVE)
    conn.execute(text("ANALYZE given_params"))
    asked = {"limit": limit}
    shared = [
        (row.line, "phone: several people have the number; name the user") for row in conn.execute(_SHARED, asked)
    ]
    twice = [(row.line, f"is about the same person as line {row.first}") for row in conn.execute(_TWICE, asked)]
    return sorted(shared + twice)


_GIVEN = sql_table("given_params", sql_column("user_id"), sql_column("params"))


def people() -> Select[Any]:
    """Return a query for the users who have gathered values."""
    return select(_GIVEN.c.user_id).where(_GIVEN.c.user_id.is_not(None))


_COUNT = text("""
SELECT
  count(*) AS rows,
  count(*) FILTER (WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = g.user_id)) AS unknown
FROM given_params g
""")


def counts(conn: Connection, wanted: Filter) -> Counts:
    """Count the people of the file and of a segment."""
    given = conn.execute(_COUNT).one()
    matched, members = segments.count(conn, wanted, only=people()), segments.count(conn, wanted)
    return Counts(given.rows, matched, given.unknown, given.rows - given.unknown - matched, members - matched)


_OF_USER = text("SELECT params FROM given_params WHERE user_id = :user")


def given_of(conn: Connection, user: str) -> dict[str, Any] | None:
    """Return the gathered values of a person; ``None``: there are none."""
    found: dict[str, Any] | None = conn.execute(_OF_USER, {"user": user}).scalar()
    return found


_KEEP = text("""
INSERT INTO blast_params (user_id, blast_id, params)
SELECT user_id, :blast, params
FROM given_params
WHERE user_id IS NOT NULL
ORDER BY user_id
""")


def keep(conn: Connection, blast: str) -> None:
    """Give the gathered values to a blast."""
    conn.execute(_KEEP, {"blast": blast})


_OF = text("""
SELECT user_id, params
FROM blast_params
WHERE blast_id = :blast AND user_id = ANY(CAST(:users AS text[]))
""")


def of(conn: Connection, blast: str, users: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the values of people in a blast, by person. Who has none is not notified."""
    found = conn.execute(_OF, {"blast": blast, "users": list(users)})
    return {row.user_id: row.params for row in found}


_USED = text("DELETE FROM blast_params WHERE blast_id = :blast AND user_id = ANY(CAST(:users AS text[]))")


def used(conn: Connection, blast: str, users: Collection[str]) -> None:
    """Delete the values of people in a blast: their notifications have them now."""
    conn.execute(_USED, {"blast": blast, "users": list(users)})


# Only running blasts have rows, so the table is small.
_DROP = text("DELETE FROM blast_params WHERE blast_id = :blast")


def drop(conn: Connection, blast: str) -> None:
    """Delete what is left of a blast that has ended: values of people who were not in its segment."""
    conn.execute(_DROP, {"blast": blast})


_FORGET = text("DELETE FROM blast_params WHERE user_id = :user")


def forget_user(conn: Connection, user: str) -> None:
    """Delete a person's values in all blasts. The person is not notified by them any more."""
    conn.execute(_FORGET, {"user": user})
