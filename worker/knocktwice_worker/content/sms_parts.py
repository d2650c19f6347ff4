"""Counts the parts of an SMS, which are the unit of its price and of a sender's rate.

A text in the GSM 7-bit alphabet has 160 septets in one part, or 153 in each of several parts. Any other text is written
in UTF-16 with 70 or 67 units. An escaped character, or an emoji of several code points, is never split between parts.
(3GPP TS 23.038, 6.2.1 and 23.040, 9.2.3.24.1.)

Each version of Unicode has its own rules about which code points belong together. Providers count by version 10.0, so
this module does, too. In that version an Indic conjunct, or an emoji joined in a newer way, is several clusters.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BASIC = frozenset(
    "\n\r !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
    "¡£¤¥§¿ÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùüΓΔΘΛΞΠΣΦΨΩ"
)
#: Written with an escape, so they count twice.
_EXTENDED = frozenset("\f[\\]^{|}~€")
_GSM = _BASIC | _EXTENDED

#: Size of the only part, and of each of several.
_SEPTETS, _UNITS = (160, 153), (70, 67)

#: One extended grapheme cluster (https://www.unicode.org/reports/tr29/tr29-31.html), in letters of grapheme_breaks.txt.
#: Of two flags and what follows the calculators of providers leave one mark with them, where Unicode has any number.
_CLUSTER = re.compile(
    r"c|p*(?:ff[ezm]?|(?:l*(?:xv*|y|v+)t*|l+|t+|[ba]e*s|[^c])(?:[ezm]|(?<=z)(?:ae*s|[ga]))*)",
)


class Encoding(StrEnum):
    """The encoding of an SMS. One character outside the GSM 7-bit alphabet makes all of it UCS-2."""

    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


def encoding(text: str) -> Encoding:
    """Return what an SMS is written in."""
    return Encoding.GSM_7 if _GSM.issuperset(text) else Encoding.UCS_2


def count(text: str) -> int:
    """Return the number of parts of an SMS; an empty text has one."""
    if len(text) <= _SEPTETS[0] and _BASIC.issuperset(text):
        return 1
    if encoding(text) is Encoding.GSM_7:
        return _packed((2 if c in _EXTENDED else 1 for c in text), *_SEPTETS)
    if len(text.encode("utf-16-le", "surrogatepass")) // 2 <= _UNITS[0]:
        return 1
    return _packed(_sizes(text), *_UNITS)


def _sizes(text: str) -> Iterator[int]:
    """Yield the UTF-16 units of each grapheme cluster. CR LF is one to Unicode, and two characters to a phone."""
    wide = max(text) > "\uffff"
    for cluster in _CLUSTER.finditer(text.translate(_classes())):
        start, end = cluster.span()
        yield len(text[start:end].encode("utf-16-le", "surrogatepass")) // 2 if wide else end - start


class _Classes(dict[int, str]):
    """Code point → the letter of its class in :data:`_CLUSTER`."""

    def __init__(self) -> None:
        content = resources.files("knocktwice_worker.content").joinpath("grapheme_breaks.txt").read_text("ascii")
        ranges: list[tuple[int, int, str]] = []
        for line in content.splitlines():
            letter, _, codes = line.partition(" ")
            for code in () if letter == "#" else codes.split():
                first, _, last = code.partition("-")
                ranges.append((int(first, 16), int(last or first, 16), letter))
        self._ranges = sorted(ranges)
        self._starts = [first for first, _, _ in self._ranges]

    def __missing__(self, code: int) -> str:
        _, last, letter = self._ranges[bisect_right(self._starts, code) - 1]
        if code > last:
            letter = "o"
        elif letter == "h":
            # Of the whole Hangul syllables, each 28th has no final consonant.
            letter = "x" if (code - 0xAC00) % 28 == 0 else "y"
        self[code] = letter
        return letter


@cache
def _classes() -> _Classes:
    return _Classes()


def _packed(pieces: Iterable[int], alone: int, several: int) -> int:
    sizes = list(pieces)
    if sum(sizes) <= alone:
        return 1
    place = filled = 0
    while filled + sizes[place] <= alone:
        filled += sizes[place]
        place += 1
    # Only now is the first part one of several, and has less room.
    moved = place
    while filled > several:
        moved -= 1
        filled -= sizes[moved]
    parts, filled = 2, sum(sizes[moved : place + 1])
    for size in sizes[place + 1 :]:
        if filled + size > several:
            parts, filled = parts + 1, 0
        filled += size
    return parts
