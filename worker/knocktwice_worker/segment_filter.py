"""The language of segments: JSON that says who belongs, checked into a tree. ``docs/segments.md`` describes it.

A *condition* compares one field of a person with a value; ``and``, ``or`` and ``not`` combine filters. Each filter is true
or false of each person, never "unknown": what is missing satisfies no condition, and ``!=`` and ``not`` are exact opposites.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TAG_NAME_LIMIT, Platform, TagItem

#: How deep filters may stand in each other. SQL follows the tree, and nobody understands more.
DEPTH_LIMIT = 10
#: Most conditions in one filter.
CONDITIONS_LIMIT = 200
#: Most values that one ``in`` may list.
VALUES_LIMIT = 1_000
#: Longest text that a condition may compare with, in characters.
TEXT_LIMIT = 1_000

_TAG = "tags."
_UNCARRIABLE = re.compile("[\x00\ud800-\udfff]")
_AGO = re.compile(r"([0-9]{1,5}) (minute|hour|day|week)s? ago")


class Op(StrEnum):
    """How a field is compared."""

    IS = "="
    IS_NOT = "!="
    BELOW = "<"
    ABOVE = ">"
    IN = "in"
    EXISTS = "exists"
    CONTAINS = "contains"


class Kind(StrEnum):
    """What a field holds, as an error says it."""

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
    Kind.COUNTRY: re.compile(r"[A-Za-z]{2}"),
    Kind.PLATFORM: re.compile("|".join(Platform)),
}


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Everyone(_Node):
    """Everybody. Said in so many words, so that a filter that was left empty does not text all people."""

    everyone: Literal[True]


class And(_Node):
    """Who is in each of the parts."""

    parts: tuple[Filter, ...] = Field(alias="and", min_length=1)


class Or(_Node):
    """Who is in at least one of the parts."""

    parts: tuple[Filter, ...] = Field(alias="or", min_length=1)


class Not(_Node):
    """Who is not in the part."""

    part: Filter = Field(alias="not")


class Condition(_Node):
    """One comparison.

    Attributes:
        field: ``tags.NAME`` or a name of :data:`FIELDS`.
        op: one that :data:`OPS` allows for the field.
        value: what to compare with; several for ``in``; for ``exists`` whether it should.
    """

    field: str
    op: Op
    value: TagItem | tuple[TagItem, ...] = Field(default=None, validate_default=True)

    @property
    def kind(self) -> Kind:
        """What the field holds."""
        return _kind(self.field)

    @property
    def tag(self) -> str:
        """The tag's name, of a field that is one."""
        return self.field.removeprefix(_TAG)

    @property
    def values(self) -> tuple[TagItem, ...]:
        """The value, or the values of an ``in``."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @field_validator("field", mode="before")
    @classmethod
    def _known_field(cls, field: object) -> str:
        if isinstance(field, str) and field.startswith(_TAG):
            name = field.removeprefix(_TAG)
            if not name.strip() or len(name) > TAG_NAME_LIMIT or _UNCARRIABLE.search(name):
                raise ValueError(f"must name a tag, of at most {TAG_NAME_LIMIT} characters, after {_TAG}")
        elif not isinstance(field, str) or field not in FIELDS:
            raise ValueError(f"must be one of {_TAG}NAME, {', '.join(FIELDS)}")
        return field

    @field_validator("op", mode="before")
    @classmethod
    def _known_op(cls, op: object, info: ValidationInfo) -> Op:
        field = info.data.get("field")
        allowed = OPS[_kind(field)] if field is not None else tuple(Op)
        if not isinstance(op, str) or op not in allowed:
            raise ValueError(f"must be one of {' '.join(allowed)}" + (f" for {field}" if field else ""))
        return Op(op)

    @field_validator("value", mode="before")
    @classmethod
    def _fitting_value(cls, value: object, info: ValidationInfo) -> TagItem | tuple[TagItem, ...]:
        field, op = info.data.get("field"), info.data.get("op")
        if field is None or op is None:
            return ""  # That was complained about already.
        if op is Op.EXISTS:
            return _flag(True if value is None else value)
        if op is Op.IN:
            if not isinstance(value, list) or not 1 <= len(value) <= VALUES_LIMIT:
                raise ValueError(f"must be a list of 1 to {VALUES_LIMIT} values")
            return tuple(_item(item, _kind(field)) for item in value)
        item = _item(value, _kind(field))
        if op in (Op.BELOW, Op.ABOVE) and isinstance(item, bool):
            raise ValueError("must be a number or text, which have an order")
        return item


def _shape(value: object) -> str | None:
    """Say which kind of filter an object wants to be; ``None`` if that cannot be told."""
    if isinstance(value, _Node):  # on the way back to JSON
        return f"<{type(value).__name__.lower()}>"
    if not isinstance(value, dict):
        return None
    shapes = [shape for shape in ("and", "or", "not", "everyone") if shape in value]
    if len(shapes) > 1:
        return None
    if shapes:
        return f"<{shapes[0]}>"
    return "<condition>" if value.keys() & {"field", "op", "value"} else None


Filter = Annotated[
    Annotated[And, Tag("<and>")]
    | Annotated[Or, Tag("<or>")]
    | Annotated[Not, Tag("<not>")]
    | Annotated[Everyone, Tag("<everyone>")]
    | Annotated[Condition, Tag("<condition>")],
    Discriminator(
        _shape,
        custom_error_type="shape",
        custom_error_message="must be an object with one of and, or, not, everyone, or with field, op and value",
    ),
]

for _model in (And, Or, Not):
    _model.model_rebuild()
_FILTER: TypeAdapter[Filter] = TypeAdapter(Filter)
_SHAPES = {f"<{shape}>" for shape in ("and", "or", "not", "everyone", "condition")}


def parse(wire: object, path: str = "filter") -> Filter:
    """Check a filter.

    Args:
        wire: the decoded JSON.
        path: what the caller calls it.

    Raises:
        InvalidMessage: something in it is wrong; the first is named, like ``filter.and[1].op``.
    """
    _measure(wire, path)
    try:
        return _FILTER.validate_python(wire)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise InvalidMessage(path + _place(first["loc"]), _problem(first["type"], first["msg"])) from None


def parse_json(text: str, path: str = "filter") -> Filter:
    """Check a filter that is written as JSON. Raises like :func:`parse`."""
    try:
        wire = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidMessage(path, "is not JSON") from None
    return parse(wire, path)


def dump(of: Filter) -> dict[str, Any]:
    """Return a filter as JSON that :func:`parse` takes."""
    return of.model_dump(mode="json", by_alias=True)


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


def _kind(field: str) -> Kind:
    return Kind.TAG if field.startswith(_TAG) else FIELDS[field]


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be {Kind.FLAG}")
    return value


def _item(value: object, kind: Kind) -> TagItem:
    match kind:
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
        raise ValueError("is missing" if value is None else f"must be {kind}")
    if kind is Kind.TIME:
        moment(value)
    elif not _WORDS[kind].fullmatch(value):
        raise ValueError(f"must be {kind}")
    return value


def _measure(wire: object, path: str) -> None:
    """Refuse what is too deep or too much, before anything walks it by recursion."""
    conditions, left = 0, [(wire, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, dict):
            conditions += "field" in value
            depth += 1
            left += ((inner, depth) for inner in value.values())
        elif isinstance(value, list):
            left += ((inner, depth) for inner in value)
        if depth > DEPTH_LIMIT:
            raise InvalidMessage(path, f"is nested deeper than {DEPTH_LIMIT} levels")
        if conditions > CONDITIONS_LIMIT:
            raise InvalidMessage(path, f"has more than {CONDITIONS_LIMIT} conditions")
    try:
        json.dumps(wire, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidMessage(path, "holds something JSON cannot carry") from None


def _place(loc: tuple[int | str, ...]) -> str:
    steps = (step for step in loc if step not in _SHAPES)
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _problem(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a field of a filter"
        case "too_short":
            return "is empty"
        case "tuple_type":
            return "must be a list of filters"
        case "literal_error":
            return "must be true"
    return message.removeprefix("Value error, ")
