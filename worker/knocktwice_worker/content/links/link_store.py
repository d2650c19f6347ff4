"""Where short links lead: written with the reservation of the message that holds them, read at each click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, text

if TYPE_CHECKING:
    from collections.abc import Sequence


#: How an event's registration begins when what was opened is a link: it is not known on which device.
LINK = "link:"


class Link(NamedTuple):
    """A link in a message."""

    token: str
    notification_id: str
    step: int
    target: str


# Should two ever be the same, both are dead: a person must not see what was meant for another.
_INSERT = text("""
INSERT INTO links AS l (token, notification_id, step, target)
SELECT * FROM unnest(CAST(:tokens AS text[]), CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:targets AS text[]))
ORDER BY 1
ON CONFLICT (token) DO UPDATE SET target = NULL
WHERE (l.notification_id, l.step, l.target) IS DISTINCT FROM (EXCLUDED.notification_id, EXCLUDED.step, EXCLUDED.target)
""")

_FIND = text("SELECT notification_id, step, target FROM links WHERE token = :token AND target IS NOT NULL")


def insert(conn: Connection, links: Sequence[Link]) -> None:
    """Write links in one statement, or none if there are none. A repeat changes nothing."""
    if links:
        tokens, ids, steps, targets = (list(column) for column in zip(*sorted(set(links)), strict=True))
        conn.execute(_INSERT, {"tokens": tokens, "ids": ids, "steps": steps, "targets": targets})


def find(conn: Connection, token: str) -> Row[Any] | None:
    """Return ``notification_id, step, target`` of a link."""
    return conn.execute(_FIND, {"token": token}).first()
