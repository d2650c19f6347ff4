"""The bill check: a provider's list of messages against our rows, line by line and to the last digit of each price.

Money is counted in decimal numbers and never rounded. A list is read as a stream, so its length does not matter.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.lifecycle import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

#: Lines that are looked up together.
_PAGE = 1_000
#: Column of a list → how providers head it, without case, blanks and underscores.
_HEADINGS = {
    "id": ("sid", "messagesid", "messageid", "id", "providerid"),
    "price": ("price", "cost", "amount", "total"),
    "currency": ("priceunit", "currency", "unit"),
    "parts": ("numsegments", "segments", "parts", "smscount"),
}
#: States in which a message was never handed over, or was refused.
_NEVER_SENT = {DeliveryState.FAILED, DeliveryState.SKIPPED, DeliveryState.CANCELLED}


class Fault(StrEnum):
    """The problem of a line."""

    #: We know no message of this id.
    NOT_OURS = "not_ours"
    #: The list has the id before.
    TWICE = "twice"
    #: We know that the provider refused it.
    NEVER_SENT = "never_sent"
    #: The price is not what the provider reported.
    PRICE = "price"
    #: The currency is not what the provider reported.
    CURRENCY = "currency"
    #: The parts are not as many as the text has.
    PARTS = "parts"
    #: A line cannot be read.
    UNREADABLE = "unreadable"
    #: A message of the time of the list is not on it.
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree.

    Attributes:
        line: of the list, its heading being the first; 0: the list lacks it.
        id: the provider's id.
        billed, ours: what the list says, and what our row does.
    """

    fault: Fault
    line: int
    id: str
    billed: str = ""
    ours: str = ""


@dataclass(slots=True)
class Check:
    """The outcome.

    Attributes:
        lines: how many the list has.
        agreeing: how many of them agree in everything.
        billed: currency → the sum of the list.
        ours: currency → the sum of our rows that the list names, where the provider reported a price.
    """

    lines: int = 0
    agreeing: int = 0
    findings: list[Finding] = field(default_factory=list)
    billed: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    ours: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; money as text."""
        return {
            "lines": self.lines,
            "agreeing": self.agreeing,
            "faults": dict(Counter(f.fault.value for f in self.findings)),
            "billed": {currency: str(amount) for currency, amount in sorted(self.billed.items())},
            "ours": {currency: str(amount) for currency, amount in sorted(self.ours.items())},
            "findings": [
                {"fault": f.fault, "line": f.line, "id": f.id, "billed": f.billed, "ours": f.ours}
                for f in self.findings
            ],
        }


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    id: str
    price: Decimal | None
    currency: str | None
    parts: int | None


# Only the columns that a list may name. A message with media (its text begins with the character 30, see
# content/media.py) is not paid by parts. A message that the provider failed after taking it may be on the list, too.
_ROWS = text("""
SELECT provider_id, state, price, price_unit, CASE WHEN ascii(text) = 30 THEN 0 ELSE parts END AS parts
FROM deliveries
WHERE provider_id = ANY(:ids) AND step > 0
UNION ALL
SELECT lost.id, 'failed', NULL, NULL, 0
FROM deliveries d
CROSS JOIN LATERAL unnest(d.lost_ids) AS lost(id)
WHERE d.lost_ids && CAST(:ids AS text[]) AND lost.id = ANY(:ids)
""")

# finished_at: when the provider took it.
_SENT = text("""
SELECT provider_id
FROM deliveries
WHERE finished_at >= :since AND finished_at < :until
  AND step > 0 AND state = 'sent' AND provider = :provider AND provider_id IS NOT NULL
ORDER BY finished_at
""")


def check(conn: Connection, lines: Iterable[str]) -> tuple[Check, set[str]]:
    """Compare a list with our rows.

    Args:
        lines: of a CSV file, its heading first.

    Returns:
        The outcome, and the ids on the list.

    Raises:
        InvalidMessage: the list has no column with ids, or none to compare.
    """
    found, seen = Check(), set[str]()
    pages = _read(lines, found)
    while page := list(islice(pages, _PAGE)):
        rows = {row.provider_id: row for row in conn.execute(_ROWS, {"ids": [line.id for line in page]})}
        for line in page:
            row = rows.get(line.id)
            faults = list(_faults(line, row, seen))
            if row is not None and row.price is not None and line.id not in seen:
                found.ours[row.price_unit or ""] += row.price
            found.findings += faults
            found.agreeing += not faults
            seen.add(line.id)
    return found, seen


def missing(conn: Connection, provider: str, since: datetime, until: datetime, seen: set[str]) -> list[Finding]:
    """Return the messages that a provider took within a time and that are not on its list."""
    sent = conn.execute(_SENT, {"provider": provider, "since": since, "until": until})
    return [Finding(Fault.MISSING, 0, row.provider_id) for row in sent if row.provider_id not in seen]


def _read(lines: Iterable[str], found: Check) -> Iterator[_Line]:
    reader = csv.reader(lines)
    columns = _columns(next(reader, []))
    for cells in reader:
        if not any(cells):
            continue
        found.lines += 1
        number = reader.line_num
        try:
            line = _line(number, cells, columns)
        except (ValueError, IndexError, InvalidOperation):
            found.findings.append(Finding(Fault.UNREADABLE, number, ",".join(cells)[:80]))
            continue
        if line.price is not None:
            found.billed[line.currency or ""] += line.price
        yield line


def _columns(heading: Sequence[str]) -> Mapping[str, int]:
    plain = ["".join(c for c in word.casefold() if c.isalnum()) for word in heading]
    places = {
        name: next(plain.index(word) for word in words if word in plain)
        for name, words in _HEADINGS.items()
        if any(word in plain for word in words)
    }
    if "id" not in places:
        raise InvalidMessage("list", f"has no column with ids; one must be called {', '.join(_HEADINGS['id'])}")
    if places.keys() == {"id"}:
        raise InvalidMessage("list", "has nothing but ids to compare: neither price nor parts")
    return places


def _line(number: int, cells: Sequence[str], columns: Mapping[str, int]) -> _Line:
    def cell(name: str) -> str:
        return cells[columns[name]].strip() if name in columns else ""

    if not cell("id"):
        raise ValueError
    # Some providers write what they take as a negative amount.
    price = abs(Decimal(cell("price"))) if cell("price") else None
    if price is not None and not price.is_finite():
        raise ValueError
    parts = int(cell("parts")) if cell("parts") else None
    return _Line(number, cell("id"), price, cell("currency").upper() or None, parts)


def _faults(line: _Line, row: Row[Any] | None, seen: set[str]) -> Iterator[Finding]:
    def fault(what: Fault, billed: object = "", ours: object = "") -> Finding:
        return Finding(what, line.number, line.id, str(billed), str(ours))

    if line.id in seen:
        yield fault(Fault.TWICE)
        return
    if row is None:
        yield fault(Fault.NOT_OURS)
        return
    if row.state in _NEVER_SENT and line.price:
        yield fault(Fault.NEVER_SENT, line.price, row.state)
    if None not in (line.price, row.price) and line.price != row.price:
        yield fault(Fault.PRICE, line.price, row.price)
    if None not in (line.currency, row.price_unit) and line.currency != row.price_unit:
        yield fault(Fault.CURRENCY, line.currency, row.price_unit)
    if line.parts is not None and row.parts and line.parts != row.parts:
        yield fault(Fault.PARTS, line.parts, row.parts)
