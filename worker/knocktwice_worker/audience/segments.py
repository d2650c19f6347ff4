"""Saved segments: named filters over people. Who belongs is asked anew each time; nothing is kept but the filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, func, select
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_worker.audience.segment_filter import Filter, dump, parse
from knocktwice_worker.audience.segment_sql import where
from knocktwice_worker.database.schema.people import segments, users

if TYPE_CHECKING:
    from datetime import datetime

#: Longest name of a segment, and its longest description, in characters.
NAME_LIMIT, DESCRIPTION_LIMIT = 100, 1_000


class UnknownSegment(KnocktwiceError):
    """There is no segment of that name: look at ``knocktwice segment list``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no segment {name!r}; 'knocktwice segment list' shows those there are")
        self.name = name


@dataclass(frozen=True, slots=True)
class Segment:
    """A saved filter."""

    name: str
    filter: Filter
    description: str
    updated_at: datetime


def put(conn: Connection, name: str, filter: Filter, description: str = "") -> bool:  # noqa: A002 - it is one
    """Save a segment under a name, in place of any that was there.

    Returns:
        Whether that changed anything.

    Raises:
        InvalidMessage: the name or the description cannot be one.
    """
    check(name, description)
    saved = insert(segments).values(name=name, filter=dump(filter), description=description)
    new = saved.excluded
    changed = conn.execute(
        saved.on_conflict_do_update(
            index_elements=["name"],
            set_={"filter": new.filter, "description": new.description, "updated_at": func.knocktwice_now()},
            where=(segments.c.filter != new.filter) | (segments.c.description != new.description),
        ).returning(segments.c.name)
    )
    return changed.first() is not None


def check(name: str, description: str) -> None:
    """Make sure that a segment can be called this.

    Raises:
        InvalidMessage: it cannot.
    """
    _check_text(name, "name", NAME_LIMIT)
    if description:
        _check_text(description, "description", DESCRIPTION_LIMIT)


def get(conn: Connection, name: str) -> Segment:
    """Return a segment.

    Raises:
        UnknownSegment: there is none.
    """
    row = conn.execute(select(segments).where(segments.c.name == name)).first() if name.isprintable() else None
    if row is None:
        raise UnknownSegment(name)
    return _segment(row)


def list_all(conn: Connection) -> list[Segment]:
    """Return all segments, by name."""
    return [_segment(row) for row in conn.execute(select(segments).order_by(segments.c.name))]


def delete(conn: Connection, name: str) -> None:
    """Forget a segment; its people stay.

    Raises:
        UnknownSegment: there is none.
    """
    if not name.isprintable() or not conn.execute(delete_from(segments).where(segments.c.name == name)).rowcount:
        raise UnknownSegment(name)


def count(conn: Connection, filter: Filter, *, only: Select[Any] | None = None) -> int:  # noqa: A002
    """Return how many people belong now.

    Args:
        only: a query for users; others are not counted.
    """
    counted = select(func.count()).select_from(users).where(where(filter))
    return int(conn.execute(counted if only is None else counted.where(users.c.id.in_(only))).scalar_one())


def sample(conn: Connection, filter: Filter, n: int) -> list[str]:  # noqa: A002
    """Return the ids of ``n`` people who belong, drawn at random; of all, if there are fewer."""
    return list(conn.scalars(_ids(filter).order_by(func.random()).limit(n)))


def members(conn: Connection, filter: Filter, after: str | None, limit: int) -> list[str]:  # noqa: A002
    """Return the next page of ids, in the database's order of ids.

    Each page costs about the same, however far it is, and nothing is held between two: people who come or go meanwhile
    neither shift nor repeat the others.

    Args:
        after: the last id of the page before; ``None`` for the first page.
        limit: most ids to return. An empty page is the end.
    """
    # In a join PostgreSQL begins each page with work on everybody, so the people are walked by id and each is looked
    # up.
    page = _ids(filter, joins=False).order_by(users.c.id).limit(limit)
    return list(conn.scalars(page if after is None else page.where(users.c.id > after)))


def _ids(filter: Filter, *, joins: bool = True) -> Select[tuple[str]]:  # noqa: A002
    return select(users.c.id).where(where(filter, joins=joins))


def _segment(row: Row[Any]) -> Segment:
    # Checked again: it may have been written by hand, or by another version.
    return Segment(row.name, parse(row.filter, f"segment {row.name}: filter"), row.description, row.updated_at)


def _check_text(text: str, field: str, limit: int) -> None:
    if not text.strip() or len(text) > limit or not text.isprintable():
        raise InvalidMessage(field, f"must be 1 to {limit} printable characters")
