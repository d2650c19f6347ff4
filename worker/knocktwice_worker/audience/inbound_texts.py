"""Texts that people write back: who wants to be left alone, and who no longer does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import phonenumbers
from sqlalchemy import Connection, text

from knocktwice_worker.audience import opt_outs
from knocktwice_worker.audience.opt_out_words import Wish

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: A text is kept so that a repeat is known as one, and a late "has opted out" does not undo a START.
_KEPT, _NEEDED = timedelta(days=90), timedelta(days=7)


@dataclass(frozen=True, slots=True)
class InboundText:
    """A text that a person wrote to one of our senders.

    Attributes:
        provider_id: the provider's id, by which a repeat is known.
        number: who wrote, in E.164.
        wish: what about; ``None``: nothing that concerns us.
    """

    provider_id: str
    number: str
    wish: Wish | None


def country(number: str) -> str | None:
    """Return the country whose words count for a number: its own country, else the main one of its calling code."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.region_code_for_number(parsed) or phonenumbers.region_code_for_country_code(
        parsed.country_code or 0
    )


_KEEP = text("""
INSERT INTO inbound_texts (provider_id, number, wish) VALUES (:id, :number, :wish) ON CONFLICT DO NOTHING
""")
_OPT_OUT = text("INSERT INTO opt_outs (number, source) VALUES (:number, 'sms') ON CONFLICT DO NOTHING")
_OPT_IN = text("DELETE FROM opt_outs WHERE number = :number")
# An opt-out that an operator recorded stays: "yes" may have been about something else.
_YES = text("DELETE FROM opt_outs WHERE number = :number AND source IN ('sms', 'provider')")


def receive(conn: Connection, texts: Sequence[InboundText], secret: bytes) -> int:
    """Note who wants to be left alone and who no longer does. A text that was seen before changes nothing.

    Args:
        secret: the installation's key, with which numbers of erased people were hashed.

    Returns:
        How many of the texts were new.
    """
    fresh = 0
    # Sorted by number: two transactions with the same texts or numbers wait for each other instead of deadlocking. The
    # sort is stable, so what one person wrote stays in the order in which it came.
    for one in sorted(texts, key=lambda t: t.number):
        kept = Wish.START if one.wish is Wish.YES else one.wish
        if not conn.execute(_KEEP, {"id": one.provider_id, "number": one.number, "wish": kept}).rowcount:
            continue
        fresh += 1
        if one.wish is Wish.STOP:
            conn.execute(_OPT_OUT, {"number": one.number})
        elif one.wish is Wish.START:
            conn.execute(_OPT_IN, {"number": one.number})
            # Its owner may have been erased since the STOP, and the opt-out is kept as a hash then.
            opt_outs.lift(conn, [one.number], secret)
        elif one.wish is Wish.YES:
            conn.execute(_YES, {"number": one.number})
    return fresh


_FORGET = text("DELETE FROM inbound_texts WHERE received_at < knocktwice_now() - :keep")


def forget(conn: Connection, keep: timedelta) -> int:
    """Delete texts that will not be repeated any more, and return how many.

    Args:
        keep: how long anything is kept; zero: for ever, which these are not.
    """
    return conn.execute(_FORGET, {"keep": max(_NEEDED, min(_KEPT, keep or _KEPT))}).rowcount


_FORGET_NUMBERS = text("UPDATE inbound_texts SET number = '' WHERE number = ANY(:numbers)")


def forget_numbers(conn: Connection, numbers: Collection[str]) -> None:
    """Delete the numbers of these texts. The texts' ids stay, so that a repeat is recognised."""
    if numbers:
        conn.execute(_FORGET_NUMBERS, {"numbers": sorted(numbers)})
