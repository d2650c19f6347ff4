"""The fields of a person that segments can use, with their comparisons and values. Raises ``ValueError``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import get_args

from knocktwice_shared.messages import TAG_NAME_LIMIT, Platform, TagItem
from knocktwice_worker.notation.countries import known_country

#: Most values that one ``in`` may list.
VALUES_LIMIT = 1_000
#: Longest text that a condition may compare with, in characters.
TEXT_LIMIT = 1_000
#: The prefix of a tag's name.
TAG = "tags."

_UNCARRIABLE = re.compile("[\x00\ud800-\udfff]")
_AGO = re.compile(r"([0-9]{1,5}) (minute|hour|day|week)s? ago")


class Op(StrEnum):
    """The comparisons of a field."""

    IS = "="
    IS_NOT = "!="
    BELOW = "<"
    ABOVE = ">"
    IN = "in"
    EXISTS = "exists"
    CONTAINS = "contains"


class Kind(StrEnum):
    """The type of a field, as an error names it."""

    TAG = "a tag"
    LOCALE = "a locale like de-AT"
    LANGUAGE = "a language like de"
    COUNTRY = "a country like AT"
    PLATFORM = f"one of {', '.join(Platform)}"
    FLAG = "true or false"
    TIME = 'an ISO 8601 time with an offset, or like "30 days ago"'


#: Every field but the tags, whose names are the application's own.
FIELDS = {
    "locale": Kind.LOCALE,
    "language": Kind.LANGUAGE,
    "country": Kind.COUNTRY,
    "platform": Kind.PLATFORM,
    "has_device": Kind.FLAG,
    "notifications_enabled": Kind.FLAG,
    "has_phone": Kind.FLAG,
    "can_receive_sms": Kind.FLAG,
    "consent": Kind.FLAG,
    "last_seen": Kind.TIME,
}

_WORD = (Op.IS, Op.IS_NOT, Op.IN, Op.EXISTS)
#: Which comparisons make sense for which kind of field.
OPS = {
    Kind.TAG: tuple(Op),
    Kind.LOCALE: _WORD,
    Kind.LANGUAGE: _WORD,
    Kind.COUNTRY: _WORD,
    Kind.PLATFORM: _WORD,
    Kind.FLAG: (Op.IS, Op.IS_NOT),
    Kind.TIME: (Op.BELOW, Op.ABOVE, Op.EXISTS),
}

_WORDS = {
    Kind.LOCALE: re.compile(r"[A-Za-z0-9_-]{1,64}"),
    Kind.LANGUAGE: re.compile(r"[A-Za-z]{2,8}"),
    Kind.PLATFORM: re.compile("|".join(Platform)),
}


def kind(name: str) -> Kind:
    """Return what a field holds."""
    return Kind.TAG if name.startswith(TAG) else FIELDS[name]


def field(name: object) -> str:
    """Check the name of a field."""
    if isinstance(name, str) and name.startswith(TAG):
        tag = name.removeprefix(TAG)
        if not tag.strip() or len(tag) > TAG_NAME_LIMIT or _UNCARRIABLE.search(tag):
            raise ValueError(f"must name a tag, of at most {TAG_NAME_LIMIT} characters, after {TAG}")
    elif not isinstance(name, str) or name not in FIELDS:
        raise ValueError(f"must be one of {TAG}NAME, {', '.join(FIELDS)}")
    return name


def op(name: object, of: str | None) -> Op:
    """Check a comparison; ``of`` is its field if that is a right one."""
    allowed = tuple(Op) if of is None else OPS[kind(of)]
    if not isinstance(name, str) or name not in allowed:
        raise ValueError(f"must be one of {' '.join(allowed)}" + (f" for {of}" if of else ""))
    return Op(name)


def value(given: object, of: str, by: Op) -> TagItem | tuple[TagItem, ...]:
    """Check what a field is compared with."""
    if by is Op.EXISTS:
        return _flag(True if given is None else given)
    if by is Op.IN:
        if not isinstance(given, list) or not 1 <= len(given) <= VALUES_LIMIT:
            raise ValueError(f"must be a list of 1 to {VALUES_LIMIT} values")
        return tuple(_item(item, kind(of)) for item in given)
    item = _item(given, kind(of))
    if by in (Op.BELOW, Op.ABOVE) and isinstance(item, bool):
        raise ValueError("must be a number or text, which have an order")
    return item


@dataclass(frozen=True, slots=True)
class Ago:
    """A moment that moves along with the clock."""

    by: timedelta


def moment(text: str) -> datetime | Ago:
    """Read a time: fixed, as ISO 8601 with an offset, or relative, as ``30 days ago``.

    Raises:
        ValueError: it is neither.
    """
    if found := _AGO.fullmatch(text):
        return Ago(timedelta(**{f"{found[2]}s": int(found[1])}))
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be {Kind.TIME}")


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be {Kind.FLAG}")
    return value


def _item(value: object, holds: Kind) -> TagItem:
    match holds:
        case Kind.FLAG:
            return _flag(value)
        case Kind.TAG:
            if not isinstance(value, get_args(TagItem)):
                raise ValueError("is missing" if value is None else "must be text, a number, true or false")
            if isinstance(value, str) and (len(value) > TEXT_LIMIT or _UNCARRIABLE.search(value)):
                raise ValueError(
                    f"must have at most {TEXT_LIMIT} characters, and neither NUL nor half a surrogate pair"
                )
            item: TagItem = value
            return item
    if not isinstance(value, str):
        raise ValueError("is missing" if value is None else f"must be {holds}")
    if holds is Kind.TIME:
        moment(value)
    elif holds is Kind.COUNTRY:
        # A code that no country has would match nobody, or with != everybody.
        known_country(value)
    elif not _WORDS[holds].fullmatch(value):
        raise ValueError(f"must be {holds}")
    return value
