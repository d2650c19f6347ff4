"""Fields that several requests and answers share, and the bounds of their texts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

#: Something else than white space, without NUL.
VISIBLE = r"^[^\x00]*[^\s\x00][^\x00]*$"


def text_of(limit: int) -> Any:
    """A field of text that is not only blanks."""
    return Field(min_length=1, max_length=limit, pattern=VISIBLE)


def Visible(limit: int, description: str | None = None) -> Any:  # noqa: N802 - stands where FastAPI's Query would
    """A parameter of text that is not only blanks."""
    return Query(min_length=1, max_length=limit, pattern=VISIBLE, description=description)


def no_number(value: object) -> object:
    """Refuse a number where a time is meant."""
    # pydantic takes numbers for times, too.
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("+-").isdigit():
        raise ValueError("must be an ISO 8601 time with an offset, like 2026-11-21T09:30:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(no_number)]


UserId = Annotated[str, text_of(200), Field(description="Your own id of the person.", examples=["u-17"])]


TakenBy = Annotated[
    str | None,
    Field(description="Who took the message; null for a push, and while nobody has.", examples=["acme"]),
]


Registration = Annotated[
    str, Field(min_length=2, max_length=4_096, pattern=r"^[^\s\x00]+$", description="FCM registration token or FID.")
]


Phone = Annotated[
    str,
    Field(
        min_length=4,
        description="Number with its country code, best in E.164; other usual ways of writing it are understood. "
        "It must be assigned in its country's number plan.",
        examples=["+16505550100"],
    ),
]


Locale = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^[A-Za-z]{2,8}([-_]{1,2}#?[A-Za-z0-9]{1,8})*([.@][A-Za-z0-9=;.-]+)?$",
        description="Like `de-AT`.",
    ),
]


IdempotencyKey = Annotated[
    str, text_of(200), Field(description="The same key never notifies twice.", examples=["order-4711-on-its-way"])
]


Params = Annotated[
    dict[str, Any],
    Field(description="Values for `{{ name }}`; at most 4 KB.", examples=[{"courier": "Ana"}]),
]


_PROJECT = r"^[a-z0-9][a-z0-9_-]{0,39}$"


#: A parameter: whose things are shown.
Project = Annotated[
    str | None,
    Query(
        pattern=_PROJECT,
        description="Only what belongs to this project; a key that is bound to a project shows nothing else anyway.",
    ),
]


#: A field: to which project something belongs.
ProjectName = Annotated[
    str | None,
    Field(
        pattern=_PROJECT,
        description="The application to which it belongs. A key that is bound to a project says it by itself.",
        examples=["shop"],
    ),
]


class Described:
    """For an annotation: the document describes the value as this model does, and nothing checks it."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self._model.__pydantic_core_schema__)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


_ITEM = {"type": ["string", "number", "boolean"]}


TagValue = Annotated[Any, WithJsonSchema({"anyOf": [_ITEM, {"type": "array", "items": _ITEM}, {"type": "null"}]})]
