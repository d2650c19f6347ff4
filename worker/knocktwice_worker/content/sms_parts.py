"""How many parts an SMS has: what a sender's rate is counted in and what is paid for.

A text that the GSM 7-bit alphabet can write has 160 septets in one part and 153 in each of several; any other is written in
UTF-16 with 70 and 67 units. What belongs together (an escaped character, an emoji of several code points) is not torn apart.
(3GPP TS 23.038, 6.2.1 and 23.040, 9.2.3.24.1.)
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from collections.abc import Iterable

_BASIC = frozenset(
    "\n\r !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
    "¡£¤¥§¿ÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùüΓΔΘΛΞΠΣΦΨΩ"
)
#: Written with an escape, so they count twice.
_EXTENDED = frozenset("\f[\\]^{|}~€")
_GSM = _BASIC | _EXTENDED

#: Size of the only part, and of each of several.
_SEPTETS, _UNITS = (160, 153), (70, 67)

_grapheme = regex.compile(r"\X")


class Encoding(StrEnum):
    """What an SMS is written in. One character outside the GSM 7-bit alphabet makes all of it UCS-2."""

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
    return _packed((len(g.encode("utf-16-le")) // 2 for g in _graphemes(text)), *_UNITS)


def _graphemes(text: str) -> Iterable[str]:
    for found in _grapheme.finditer(text):
        # One grapheme to Unicode, two characters to a phone.
        yield from "\r\n" if found[0] == "\r\n" else (found[0],)


def _packed(sizes: Iterable[int], alone: int, several: int) -> int:
    parts, filled, total = 1, 0, 0
    for size in sizes:
        total += size
        if filled + size > several:
            parts, filled = parts + 1, 0
        filled += size
    return 1 if total <= alone else parts
