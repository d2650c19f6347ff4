"""JSON that has one meaning only: what parsers read differently is refused by name.

Of a name that stands twice in an object some parsers take the first value and some the last; a firewall and the gateway
would then see two different requests.
"""

from __future__ import annotations

import codecs
import json
import math
from typing import Any, NoReturn

from knocktwice_worker.gateway.problems import Problem

#: The deepest nesting of objects and lists.
DEPTH_LIMIT = 32


class _Repeated(Exception):
    """A name stands twice in one object."""


class _Pairs(list[tuple[str, Any]]):
    """An object with all of its names, as they stand there."""


def parse(raw: bytes) -> Any:
    """Return the value of a body.

    Raises:
        Problem: it is not JSON, or ambiguous; the place or the field is named.
    """
    try:
        return json.loads(_text(raw), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
    except _Repeated:
        field = _repeated(json.loads(raw, object_pairs_hook=_Pairs), "") or "body"
        raise Problem("invalid-field", f"{field}: stands twice in one object; leave one out", field=field) from None
    except RecursionError:
        raise too_deep() from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem("malformed-json", f"the body is not one JSON object: {error.msg} at {where}") from None
    except ValueError:
        # Python refuses whole numbers of more than 4,300 digits, because reading them takes long.
        raise Problem("malformed-json", "the body holds a number with too many digits") from None


def too_deep() -> Problem:
    """Return the problem that objects and lists are nested too deep."""
    return Problem("invalid-field", f"body: is nested deeper than {DEPTH_LIMIT} levels", field="body")


def _text(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Problem("malformed-json", "the body begins with a byte order mark; send UTF-8 without one")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Problem("malformed-json", f"the body is not UTF-8: {error.reason} at byte {error.start}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Repeated
    return made


def _repeated(value: object, path: str) -> str | None:
    """Return the path of the first name that stands twice."""
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, inner in value:
            place = f"{path}.{name}" if path else name
            if name in seen:
                return place
            seen.add(name)
            if found := _repeated(inner, place):
                return found
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if found := _repeated(inner, f"{path}[{number}]"):
                return found
    return None


def _no_constant(name: str) -> NoReturn:
    raise Problem("malformed-json", f"the body holds {name}, which is not JSON; send a number, a text or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise Problem("malformed-json", "the body holds a number that is too large")
    return number
