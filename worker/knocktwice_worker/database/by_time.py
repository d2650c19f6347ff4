"""Rows of one number or of one person, found through an index whose first column is a time.

An index over numbers alone has a page of its own for nearly each new entry, anywhere among all the numbers there are.
With a long history that page is not in memory: it is read from the disk, and after a checkpoint it is written to the log
as a whole. With the time first, what is new lies together on a few pages. A look says which days it is about, and enters
the index once for each.
"""

from __future__ import annotations


def day(moment: str) -> str:
    """Return the SQL of the day, in UTC, of a time."""
    return f"CAST({moment} AT TIME ZONE 'UTC' AS date)"


def since(column: str, start: str) -> str:
    """Return the condition that a time of the past is not before ``start``, as the index that has its day first reads it."""
    return f"{column} >= {start} AND {on_days_since(column, start)}"


def on_days_since(column: str, start: str) -> str:
    """Return the condition that a time of the past is on the day of ``start`` or later."""
    # Until tomorrow, or the day after the first one if that is later: whoever wrote the time, or says the start, may go by
    # a clock that is ahead of the database's.
    first, last = day(start), f"greatest({day('knocktwice_now()')}, {day(start)}) + 1"
    days = f"ARRAY(SELECT {first} + i FROM generate_series(0, {last} - {first}) i)"
    return f"{day(column)} = ANY({days})"


def span(id_: str) -> str:
    """Return the SQL of the first three bytes of an id. Of a UUIDv7 they are its time, and change every 4.7 hours.

    By them and the id rows are in the same order as by the id alone.

    Args:
        id_: SQL of a uuid.
    """
    return f"substr(uuid_send({id_}), 1, 3)"
