"""The database's clock, the names of constraints, and the columns and indexes that many tables have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, DateTime, Index, MetaData, text

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The database's clock, as a function of our own so that tests can move it. Every time the system compares with is from
#: here, never from a worker's clock.
CLOCK = """
CREATE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT now()'
"""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def one_of(column: str, values: Iterable[str]) -> str:
    """Return the condition that a column has one of some values."""
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"


def moment(name: str, comment: str, *, required: bool = False) -> Column[object]:
    """Return a column for a time; a required one is the database's time unless the statement says another."""
    default = text("knocktwice_now()") if required else None
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=default, comment=comment)


def index_by_time(name: str, *columns: str) -> Index:
    """Return an index by time that costs its table next to nothing: it keeps the span of each 32 pages, not each row.

    It is for rows that are written once, or change soon after. Where old and new rows lie side by side, it has all
    pages read that have both.
    """
    summary = {"pages_per_range": 32, "autosummarize": "on"}
    return Index(name, *columns, postgresql_using="brin", postgresql_with=summary)
