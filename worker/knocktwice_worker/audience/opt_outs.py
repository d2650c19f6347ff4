"""Numbers that asked not to be texted.

The list is kept by number. When a person is erased, a number that only they had leaves the list, and a keyed hash of it
stays: texting somebody because they asked to be forgotten would be absurd. The hash cannot be read back; it speaks up
when the number is bound or given again.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notation.phone_numbers import spellings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime


_ADD = text(f"""
INSERT INTO opt_outs (number, source)
SELECT
  number,
  :source
FROM {rows("r", number="text")}
ON CONFLICT DO NOTHING
""")


def add(conn: Connection, numbers: Collection[str], source: str) -> int:
    """Put numbers on the list; return how many were not on it."""
    return conn.execute(_ADD, {"number": sorted(numbers), "source": source}).rowcount if numbers else 0


_REMOVE = text("DELETE FROM opt_outs WHERE number = ANY(:numbers) RETURNING number")


def remove(conn: Connection, numbers: Collection[str], secret: bytes) -> int:
    """Take numbers off the list, also those of erased people; return how many were on it."""
    removed = {row.number for row in conn.execute(_REMOVE, {"numbers": sorted(numbers)})}
    return len(removed | lift(conn, numbers, secret))


# By the primary key, so that each page costs the same however long the list is.
_PAGE = text("""
SELECT
  number,
  source,
  created_at
FROM opt_outs
WHERE number > :after
ORDER BY number
LIMIT :limit
""")


def every(conn: Connection, page: int = 10_000) -> Iterator[tuple[str, str, datetime]]:
    """Yield number, source and time of each on the list, sorted, without holding them all."""
    after = ""
    while listed := conn.execute(_PAGE, {"after": after, "limit": page}).all():
        after = listed[-1].number
        yield from ((row.number, row.source, row.created_at) for row in listed)


_SUPPRESSED = text("SELECT number FROM suppressions WHERE number = ANY(CAST(:hashes AS bytea[]))")


def suppressed(conn: Connection, numbers: Collection[str], secret: bytes) -> set[str]:
    """Return those numbers whose erased owner had opted out. Costs a query and a hash for each number."""
    if not numbers:
        return set()
    by_hash = {_hash(one, secret): number for number in numbers for one in spellings(number)}
    found = conn.execute(_SUPPRESSED, {"hashes": list(by_hash)})
    return {by_hash[bytes(row.number)] for row in found}


_SUPPRESS = text(f"""
INSERT INTO suppressions (number)
SELECT number
FROM {rows("r", number="bytea")}
ON CONFLICT DO NOTHING
""")


def forget(conn: Connection, numbers: Sequence[str], secret: bytes) -> list[str]:
    """Replace numbers on the list by their hashes; return those that were on it."""
    gone = [row.number for row in conn.execute(_REMOVE, {"numbers": sorted(numbers)})] if numbers else []
    if gone:
        conn.execute(_SUPPRESS, {"number": [_hash(number, secret) for number in gone]})
    return gone


def restore(conn: Connection, numbers: Collection[str], secret: bytes) -> None:
    """Put numbers that are bound again back on the list if their erased owner had opted out."""
    add(conn, lift(conn, numbers, secret), "before erasure")


_LIFT = text("DELETE FROM suppressions WHERE number = ANY(CAST(:hashes AS bytea[])) RETURNING number")


def lift(conn: Connection, numbers: Collection[str], secret: bytes) -> set[str]:
    """Forget the opt-outs of these numbers' erased owners; return those that had one.

    A hash cannot be respelled, so all spellings of a number are looked for.
    """
    if not numbers:
        return set()
    by_hash = {_hash(one, secret): number for number in numbers for one in spellings(number)}
    found = conn.execute(_LIFT, {"hashes": list(by_hash)})
    return {by_hash[bytes(row.number)] for row in found}


def _hash(number: str, secret: bytes) -> bytes:
    return hmac.new(secret, b"opt-out:" + number.encode(), hashlib.sha256).digest()
