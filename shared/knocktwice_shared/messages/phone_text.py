"""Phone numbers as people, phones and spreadsheets write them: the digits, or what is wrong with the text.

Nothing here knows a number plan: the worker and the gateway judge what is read here
(``knocktwice_worker/notation/phone_numbers.py``).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

#: What nearly all numbers look like. ASCII digits only: ``\d`` would let other scripts' digits through.
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
#: A number in documents and messages that anybody may use: the number plans call it valid.
EXAMPLE = "+16505550100"

_LEAST, _MOST = 7, 15
#: Straight and typographic quotation marks; a spreadsheet writes an apostrophe before text.
_QUOTES = "'\"`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
_PLACEHOLDERS = {"-", "--", "?", "n/a", "na", "nan", "nil", "none", "null", "undefined", "unknown", "tbd", "x", "+"}
#: The scheme of a link (``tel:``), or the name of a field (``Mobile:``). A fax gets no texts.
_URI = re.compile(r"(?!fax)[a-z][a-z0-9+.-]{1,15}:(?://)?", re.IGNORECASE)
_SCIENTIFIC = re.compile(r"\+?[0-9](?:[.,][0-9]+)?[eE][+ ]?[0-9]{1,3}")
_FRACTION = re.compile(r"\+?[0-9]{7,}[.,]0{1,2}")
_TRUNK_ZERO = re.compile(r"[(\[]\s*0\s*[)\]]")
_EXTENSION = re.compile(
    r"(?<=[0-9)])\s*(?:[,;]?\s*(?:ext(?:ension|n)?|x|\#|poste|anexo|ramal|interno|int|доб|durchwahl|dw)[.:=\s]*|[,;pw]+)"
    r"\s*[0-9]{1,7}\#?\s*",
    re.IGNORECASE,
)
_BETWEEN_NUMBERS = re.compile(
    r"[;,/|&\n\r\t]+|(?<=[0-9)\s])(?:or|oder|ou|o|and|und|et|e|y|и)(?=[+0-9(\s])", re.IGNORECASE
)
#: ``+49 30 1234567 / 68``: the number and its neighbour.
_OTHER_ENDING = re.compile(r"[0-9]{3}\s*/\s*[0-9]{1,3}\s*$")
_DECORATION = re.compile(r"[\s().\[\]/·\-]+")
_MASK = re.compile(r"[*•●…_]|\.{3,}|[xX]{2,}")


@dataclass(frozen=True, slots=True)
class Written:
    """The digits of a written number.

    Attributes:
        digits: ASCII digits, after a plus if one was written (``tel:`` with a context counts as written).
        idd: they begin with ``00``, which most countries dial before a country code.
    """

    digits: str
    idd: bool = False

    @property
    def international(self) -> str | None:
        """The number with its plus; ``None``: it was written without a country code."""
        if self.digits.startswith("+"):
            return self.digits
        return "+" + self.digits[2:] if self.idd else None


def read(value: object) -> Written:
    """Return the digits of a number.

    Raises:
        ValueError: it is not one number. The message says what is wrong and what to do, and does not quote the number,
            so that it stays out of logs.
    """
    if not isinstance(value, str):
        raise ValueError(_no_text(value))
    if E164.fullmatch(value):
        return Written(value)
    text = _plain(value)
    _refuse_placeholders(text)
    _refuse_spreadsheets(text)
    text = _without_uri(text)
    if _EXTENSION.search(text) and not _several(text):
        raise ValueError("has an extension, which no SMS reaches; leave it out")
    if _several(text):
        raise ValueError("holds more than one number; give one, and each person their own")
    if _MASK.search(text):
        raise ValueError("has hidden digits; write all of them")
    if any(char.isalpha() for char in text):
        raise ValueError("holds letters; write digits only, also of a number that spells a word")
    if text.startswith(("+", "(+", "00", "(00")):
        text = _TRUNK_ZERO.sub("", text)
    return _digits(_DECORATION.sub("", text))


def _no_text(value: object) -> str:
    if value is None:
        return "is missing"
    if isinstance(value, float):
        return f'is a number with a point, as spreadsheets make of text; write text in quotes, like "{EXAMPLE}"'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'is a number without quotes, which loses + and leading zeros; write text, like "{EXAMPLE}"'
    return f'must be a phone number as text, like "{EXAMPLE}"'


def _plain(value: str) -> str:
    """Return the text in ASCII as far as it means the same: full-width and other scripts' digits, dashes, blanks."""
    chars = []
    for char in unicodedata.normalize("NFKC", value):
        kind = unicodedata.category(char)
        if kind == "Nd":
            chars.append(str(unicodedata.decimal(char)))
        elif kind == "Pd" or char == "\N{MINUS SIGN}":
            chars.append("-")
        elif kind == "Zs":
            chars.append(" ")
        elif kind != "Cf":
            chars.append(char)
    return "".join(chars).strip().strip(_QUOTES).strip()


def _refuse_placeholders(text: str) -> None:
    if not text:
        raise ValueError("is empty; leave it out if there is no number")
    if text.casefold() in _PLACEHOLDERS:
        raise ValueError("is a placeholder and no number; leave it out if there is none")


def _refuse_spreadsheets(text: str) -> None:
    if _SCIENTIFIC.fullmatch(text):
        raise ValueError(
            "is how a spreadsheet shows a long number (4.47E+11), and digits are lost; "
            "format the column as text, fill it again and export it"
        )
    if _FRACTION.fullmatch(text):
        raise ValueError("ends in .0, as a spreadsheet writes numbers; format the column as text and export it again")
    if text.startswith("#"):
        raise ValueError(
            "is what a spreadsheet shows in place of a value; widen or mend the column and export it again"
        )
    if text.startswith("="):
        raise ValueError("begins with =, as a spreadsheet's formula; write the number alone")


def _without_uri(text: str) -> str:
    """Take a number out of a link such as ``tel:7042;phone-context=+1-914-555`` (RFC 3966)."""
    scheme = _URI.match(text)
    if scheme is None:
        return text
    number, *parameters = text[scheme.end() :].partition("?")[0].split(";")
    for parameter in parameters:
        name, _, said = parameter.partition("=")
        if name.strip().casefold() == "ext" and said.strip():
            raise ValueError("has an extension, which no SMS reaches; leave it out")
        if name.strip().casefold() == "phone-context" and said.strip().startswith("+") and "+" not in number:
            number = said.strip() + number
    return re.sub(r"%2B", "+", re.sub(r"%20", " ", number), flags=re.IGNORECASE).strip()


def _several(text: str) -> bool:
    """Whether the text holds two numbers or more: a single slash or comma may stand within one."""
    whole = [part for part in _BETWEEN_NUMBERS.split(text) if sum(map(str.isdigit, part)) >= _LEAST]
    plus = [part for part in text.split("+")[1:] if sum(map(str.isdigit, part)) >= _LEAST]
    return len(whole) > 1 or len(plus) > 1 or _OTHER_ENDING.search(text) is not None


def _digits(text: str) -> Written:
    bare = text.removeprefix("+")
    if "+" in bare:
        raise ValueError("has a plus in the wrong place; write one, before the country code")
    if strange := re.sub(r"[0-9]", "", bare):
        raise ValueError(f"holds a character that no number has: {strange[0]!r}; write digits only")
    if not bare:
        raise ValueError("holds no digits")
    if text.startswith("+00"):
        raise ValueError("begins with +00, and both mean the same; write one of them")
    if text.startswith("+0"):
        raise ValueError("has a 0 after the plus, where the country code belongs; no country code begins with 0")
    idd = text.startswith("00")
    count = len(bare) - (2 if idd else 0)
    abroad = idd or text != bare
    # Without a country code: small countries have numbers of four digits, and the dialled prefixes come on top.
    if count < (_LEAST if abroad else 4):
        raise ValueError(f"is too short: {count} digits; a number has {_LEAST} at least, its country code included")
    if count > (_MOST if abroad else _MOST + 4):
        raise ValueError(f"is too long: {count} digits; a number has {_MOST} at most, its country code included")
    return Written(text, idd)
