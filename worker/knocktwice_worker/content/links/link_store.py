"""The targets of short links: written with the reservation of their message, read at each click."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Sequence


#: The beginning of an event's registration if a link was opened, because the device is not known.
LINK = "link:"


class Link(NamedTuple):
    """A link in a message."""

    token: str
    notification_id: str
    step: int
    target: str


_COLUMNS = {"token": "text", "notification_id": "uuid", "step": "smallint", "target": "text"}

# Should two tokens ever be the same, both links are dead: a person must not see what was meant for another.
_INSERT = text(f"""
INSERT INTO links AS l (
  token,
  notification_id,
  step,
  target
)
SELECT
  token,
  notification_id,
  step,
  target
FROM {rows("r", **_COLUMNS)}
ORDER BY 1
ON CONFLICT (token) DO UPDATE SET
  target = NULL
WHERE (l.notification_id, l.step, l.target) IS DISTINCT FROM (excluded.notification_id, excluded.step, excluded.target)
""")


def insert(conn: Connection, links: Sequence[Link]) -> None:
    """Write links in one statement, or none if there are none. A repeat changes nothing."""
    if links:
        columns = zip(Link._fields, zip(*sorted(set(links)), strict=True), strict=True)
        conn.execute(_INSERT, {name: list(column) for name, column in columns})


_FIND = text("""
SELECT
  token,
  notification_id,
  step,
  target
FROM links
WHERE token = :token AND target IS NOT NULL
""")


def find(conn: Connection, token: str) -> Link | None:
    """Return a link; ``None`` if there is none, or it is dead."""
    row = conn.execute(_FIND, {"token": token}).first()
    return None if row is None else Link(row.token, str(row.notification_id), row.step, row.target)
