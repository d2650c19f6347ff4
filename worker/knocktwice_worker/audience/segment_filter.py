"""The language of segments: JSON that says who belongs, checked into a tree. ``docs/segments.md`` describes it.

A *condition* compares one field of a person with a value; ``and``, ``or`` and ``not`` combine filters. Each filter is
true or false of each person, never "unknown": what is missing satisfies no condition, and ``!=`` and ``not`` are exact
opposites.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

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
from knocktwice_shared.messages import TagItem  # noqa: TC001 - pydantic reads it
from knocktwice_worker.audience import segment_fields
from knocktwice_worker.audience.segment_fields import Kind, Op  # noqa: TC001 - pydantic reads it

#: The deepest nesting of filters. SQL follows the tree, and deeper filters are hard to understand.
DEPTH_LIMIT = 10
#: Most conditions in one filter.
CONDITIONS_LIMIT = 200


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Everyone(_Node):
    """Everybody. Said in so many words, so that a filter that was left empty does not text all people."""

    everyone: Literal[True]


class And(_Node):
    """The people who are in each of the parts."""

    parts: tuple[Filter, ...] = Field(alias="and", min_length=1)


class Or(_Node):
    """The people who are in at least one of the parts."""

    parts: tuple[Filter, ...] = Field(alias="or", min_length=1)


class Not(_Node):
    """The people who are not in the part."""

    part: Filter = Field(alias="not")


class Condition(_Node):
    """One comparison."""

    field: str = Field(description=f"`tags.NAME` or one of {', '.join(segment_fields.FIELDS)}.")
    op: Op = Field(description="One that is allowed for the field.")
    value: TagItem | tuple[TagItem, ...] = Field(
        default=None,
        validate_default=True,
        description="What to compare with; several for `in`; for `exists` whether it should.",
    )

    @property
    def kind(self) -> Kind:
        """The type of the field."""
        return segment_fields.kind(self.field)

    @property
    def tag(self) -> str:
        """The tag's name, of a field that is one."""
        return self.field.removeprefix(segment_fields.TAG)

    @property
    def values(self) -> tuple[TagItem, ...]:
        """The value, or the values of an ``in``."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @field_validator("field", mode="before")
    @classmethod
    def _known_field(cls, field: object) -> str:
        return segment_fields.field(field)

    @field_validator("op", mode="before")
    @classmethod
    def _known_op(cls, op: object, info: ValidationInfo) -> Op:
        return segment_fields.op(op, info.data.get("field"))

    @field_validator("value", mode="before")
    @classmethod
    def _fitting_value(cls, value: object, info: ValidationInfo) -> TagItem | tuple[TagItem, ...]:
        field, op = info.data.get("field"), info.data.get("op")
        if field is None or op is None:
            return ""  # That was complained about already.
        return segment_fields.value(value, field, op)


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
