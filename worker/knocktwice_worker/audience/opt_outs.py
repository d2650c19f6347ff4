"""Numbers that asked not to be texted.

The list is kept by number, and beside it a log of who said what about a number, and when (``opt_out_log.py``). By the
log a message that arrives late does not undo what was said after it, and webhooks tell the application about changes.

When a person is erased, a number that only they had leaves the list, and a keyed hash of it stays: texting somebody
because they asked to be forgotten would be absurd. The hash cannot be read back; it speaks up when the number is bound
or given again.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notation.phone_numbers import spellings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Row

#: What erased people's opt-outs are called when they come back on the list.
_BEFORE_ERASURE = "before erasure"


@dataclass(frozen=True, slots=True)
class OptOut:
    """A number on the list.

    Attributes:
        number: in E.164.
        source: who said so: ``sms`` (the person, by a text), ``provider``, or what the application or an operator said.
        since: when it joined the list; ``None``: only a hash is left, because its owner was erased.
        channels: the only channels over which it must not be texted; ``None``: it must not be texted at all.
    """

    number: str
    source: str
    since: datetime | None
    channels: tuple[str, ...] | None = None


# Who said what is logged even where it changes nothing, because it may contradict an older message that is still to
# come.
_ADD = text(f"""
WITH added AS (
  INSERT INTO opt_outs (number, source)
  SELECT
    number,
    :source
  FROM {rows("r", number="text")}
  ORDER BY number
  ON CONFLICT DO NOTHING
  RETURNING number
)
INSERT INTO opt_out_changes (number, opted_out, source, inbound_id, changed)
SELECT
  r.number,
  true,
  :source,
  CAST(:inbound AS uuid),
  a.number IS NOT NULL
FROM {rows("r", number="text")}
LEFT JOIN added a ON a.number = r.number
RETURNING number, changed
""")


def add(conn: Connection, numbers: Collection[str], source: str, *, inbound: str | None = None) -> list[str]:
    """Put numbers on the list; return those that were not on it.

    Args:
        source: who says so.
        inbound: the id of the text that says so.
    """
    if not numbers:
        return []
    said = conn.execute(_ADD, {"number": sorted(set(numbers)), "source": source, "inbound": inbound})
    return [row.number for row in said if row.changed]


# Who may be texted again may be texted over all channels.
_REMOVE = text("""
WITH removed AS (
  DELETE FROM opt_outs WHERE number = ANY(:numbers) RETURNING number
),
removed_of_channels AS (
  DELETE FROM channel_opt_outs
  WHERE number = ANY(:numbers) AND channel = ANY(coalesce(CAST(:channels AS text[]), ARRAY[channel]))
  RETURNING number
)
SELECT number FROM removed
UNION
SELECT number FROM removed_of_channels
""")
_REMOVE_OF_SOURCES = text("""
DELETE FROM opt_outs WHERE number = ANY(:numbers) AND source = ANY(:sources) RETURNING number
""")

_LOG_REMOVAL = text(f"""
INSERT INTO opt_out_changes (number, opted_out, source, inbound_id, changed)
SELECT
  number,
  false,
  :source,
  CAST(:inbound AS uuid),
  number = ANY(:removed)
FROM {rows("r", number="text")}
""")


def remove(
    conn: Connection,
    numbers: Collection[str],
    secret: bytes,
    source: str = "operator",
    *,
    inbound: str | None = None,
    channel: str | None = None,
) -> list[str]:
    """Take numbers off the list, also those of erased people; return those that were on it.

    Args:
        secret: the installation's, with which numbers of erased people were hashed.
        source: who says so.
        inbound: the id of the text that says so.
        channel: of opt-outs of one channel only those of this one are lifted; ``None``: all.
    """
    if not numbers:
        return []
    removed = _taken_off(conn, numbers, channel) | lift(conn, numbers, secret)
    _log_removal(conn, numbers, removed, source, inbound)
    return sorted(removed)


def _taken_off(conn: Connection, numbers: Collection[str], channel: str | None = None) -> set[str]:
    of = {"numbers": sorted(numbers), "channels": None if channel is None else [channel]}
    return {row.number for row in conn.execute(_REMOVE, of)}


def lift_stop(conn: Connection, number: str, inbound: str) -> bool:
    """Take a number off the list if its person, or a provider for them, had put it there; return whether it did.

    An opt-out that an operator or the application recorded stays, and so does one whose owner was erased.
    """
    of = {"numbers": [number], "sources": ["sms", "provider"]}
    removed = {row.number for row in conn.execute(_REMOVE_OF_SOURCES, of)}
    if removed:
        _log_removal(conn, removed, removed, "sms", inbound)
    return bool(removed)


def _log_removal(
    conn: Connection, numbers: Collection[str], removed: Collection[str], source: str, inbound: str | None
) -> None:
    said = {"number": sorted(set(numbers)), "removed": sorted(removed), "source": source, "inbound": inbound}
    conn.execute(_LOG_REMOVAL, said)


# Nobody is told about what the application or an operator brings along from elsewhere, so it is not logged.
_IMPORT = text(f"""
INSERT INTO opt_outs (number, source, created_at)
SELECT
  number,
  source,
  coalesce(least(since, knocktwice_now()), knocktwice_now())
FROM {rows("r", number="text", source="text", since="timestamptz")}
ORDER BY number
ON CONFLICT DO NOTHING
RETURNING number
""")


def bring(conn: Connection, listed: Sequence[OptOut]) -> set[str]:
    """Put numbers from another list on this one, with their source and time; return those that were not on it."""
    if not listed:
        return set()
    found = conn.execute(
        _IMPORT,
        {
            "number": [one.number for one in listed],
            "source": [one.source for one in listed],
            "since": [one.since for one in listed],
        },
    )
    return {row.number for row in found}


# Of a number that has opted out of all texts its channels say nothing more.
_LISTED = """
SELECT
  w.number,
  coalesce(o.source, c.source) AS source,
  coalesce(o.created_at, c.created_at) AS created_at,
  CASE WHEN o.number IS NULL THEN c.channels END AS channels
FROM ({wanted}) w
LEFT JOIN opt_outs o ON o.number = w.number
LEFT JOIN LATERAL (
  SELECT
    (array_agg(source ORDER BY created_at, channel))[1] AS source,
    min(created_at) AS created_at,
    array_agg(channel ORDER BY channel) AS channels
  FROM channel_opt_outs
  WHERE number = w.number
) c ON true
WHERE o.number IS NOT NULL OR c.channels IS NOT NULL
ORDER BY w.number
"""
_ON_LIST = text(_LISTED.format(wanted="SELECT unnest(CAST(:numbers AS text[])) AS number"))


def find(conn: Connection, numbers: Collection[str], secret: bytes) -> dict[str, OptOut]:
    """Return those of the numbers that must not be texted over some channel or any, also those of erased people."""
    listed = conn.execute(_ON_LIST, {"numbers": sorted(set(numbers))})
    found = {row.number: _listed(row) for row in listed}
    erased = {n: OptOut(n, _BEFORE_ERASURE, None) for n in suppressed(conn, numbers, secret)}
    return found | {n: one for n, one in erased.items() if n not in found or found[n].channels is not None}


# By the primary keys, so that each page costs the same however long the list is.
_PAGE = text(
    _LISTED.format(
        wanted="""
  (SELECT number FROM opt_outs WHERE number > :after ORDER BY number LIMIT :limit)
  UNION
  (SELECT DISTINCT number FROM channel_opt_outs WHERE number > :after ORDER BY number LIMIT :limit)
  ORDER BY number
  LIMIT :limit
"""
    )
)


def page(conn: Connection, after: str, limit: int) -> list[OptOut]:
    """Return the numbers on the list that follow another one, sorted."""
    return [_listed(row) for row in conn.execute(_PAGE, {"after": after, "limit": limit})]


def _listed(row: Row[Any]) -> OptOut:
    return OptOut(row.number, row.source, row.created_at, None if row.channels is None else tuple(row.channels))


def every(conn: Connection, at_once: int = 10_000) -> Iterator[OptOut]:
    """Yield each number on the list, sorted, without holding them all."""
    after = ""
    while listed := page(conn, after, at_once):
        after = listed[-1].number
        yield from listed


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
    gone = sorted(_taken_off(conn, numbers)) if numbers else []
    if gone:
        conn.execute(_SUPPRESS, {"number": [_hash(number, secret) for number in gone]})
    return gone


def restore(conn: Connection, numbers: Collection[str], secret: bytes) -> None:
    """Put numbers that are bound again back on the list if their erased owner had opted out."""
    bring(conn, [OptOut(number, _BEFORE_ERASURE, None) for number in sorted(lift(conn, numbers, secret))])


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
