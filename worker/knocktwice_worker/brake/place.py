"""The place of a counter: until when it has counted, slot by slot. One worker at a time moves it on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: All slots are counted from here.
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
#: Whoever has not counted for longer than this leaves the rest out.
_LONGEST = timedelta(days=1)
#: A counter that is new counts what is not older than this.
_FIRST = timedelta(hours=1)
#: The span that is counted in one statement.
_STRIDE = timedelta(minutes=10)

_IS_THERE = text("SELECT 1 FROM followers WHERE name = :name")

_JOIN = text("""
INSERT INTO followers (
  name,
  seen_until
)
VALUES (
  :name,
  date_bin(:slot, knocktwice_now() - :first, :origin)
)
ON CONFLICT DO NOTHING
""")

# One worker counts at a time; the others have nothing to do.
_SPAN = text("""
SELECT
  greatest(seen_until, date_bin(:slot, knocktwice_now() - :longest, :origin)) AS after,
  date_bin(:slot, knocktwice_now() - :settle, :origin) AS until
FROM followers WHERE name = :name FOR UPDATE SKIP LOCKED
""")

_SEEN = text("UPDATE followers SET seen_until = :until WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Span:
    """The span to be counted next; empty if it does not end after it began.

    Attributes:
        after: its first moment.
        until: its end, which does not belong to it.
        last: whether all is counted afterwards.
    """

    after: datetime
    until: datetime
    last: bool


def take(conn: Connection, name: str, *, slot: timedelta, settle: timedelta) -> Span | None:
    """Lock the place of a counter until the end of the transaction.

    Args:
        slot: how long a slot is.
        settle: a slot is counted so long after its end.

    Returns:
        What it counts next; ``None``: another worker counts.
    """
    given = {"name": name, "slot": slot, "origin": ORIGIN}
    # An insert would wait for a worker that counts, even if it changes nothing.
    if not conn.execute(_IS_THERE, {"name": name}).first():
        conn.execute(_JOIN, given | {"first": _FIRST})
    span = conn.execute(_SPAN, given | {"longest": _LONGEST, "settle": settle + slot}).first()
    if span is None:
        return None
    end = span.until + slot
    until = min(end, span.after + _STRIDE)
    return Span(span.after, until, until >= end)


def move_on(conn: Connection, name: str, until: datetime) -> None:
    """Note until when it has counted."""
    conn.execute(_SEEN, {"name": name, "until": until})
