"""Values in addresses: escaped, so that a value stays one part of its address whatever characters it has."""

from __future__ import annotations

import re
from urllib.parse import quote

#: A text that is an address from its beginning on.
_WHOLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Scheme and host, and nothing behind them yet.
_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
#: The end of a text, if an address stands there.
_OPEN = re.compile(r"https?://\S*\Z", re.IGNORECASE)
#: The characters that may stand in an address; existing escapes stay.
_SAFE = "%/:=&?~#+!$,;'@()*[]"


def is_address(text: str) -> bool:
    """Whether a text with placeholders is an address as a whole."""
    return _WHOLE.match(text) is not None


def part(value: str, before: str, *, whole: bool) -> str:
    """Return a value as it is written behind the text ``before``.

    Args:
        value: the value of a placeholder.
        before: the filled-in text in front of it.
        whole: the text is an address: a value at its beginning is taken as it is, any other is one part, with all of
            its characters escaped. Otherwise only a value within an address is escaped, as far as the address would end
            there.
    """
    if whole:
        if not before:
            return value
        return quote(value, safe=":" if _HOST.fullmatch(before) else "")
    return quote(value, safe=_SAFE) if _OPEN.search(before) else value
