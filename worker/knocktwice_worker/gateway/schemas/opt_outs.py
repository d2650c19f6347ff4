"""``/v1/opt-outs``: numbers that must not be texted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from knocktwice_shared.channels import CONTENTS
from knocktwice_worker.gateway.schemas.fields import Body, text_of

#: Most entries of one request.
ENTRIES_LIMIT = 1_000

Source = Annotated[str, text_of(200), Field(description="Who says so; kept with the number.")]


#: A channel over which people are texted.
Channel = Annotated[str, WithJsonSchema({"type": "string", "enum": [*CONTENTS]})]


class OptOutBody(Body):
    """Who says that a number must not be texted."""

    model_config = ConfigDict(json_schema_extra={"example": {"source": "letter of 3 May"}})

    source: Source = "application"
    channel: Channel | None = Field(None, description="The only channel that it concerns; left out: all texts.")


#: An entry is judged by itself: whatever is wrong with it, the others are kept.
OptOutEntry = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "An object with `number` (in E.164) and, if you like, `source` (at most 200 characters) and `channel` "
            "(the only one that it concerns; left out: all texts).",
            "examples": [{"number": "+16505550100", "source": "letter of 3 May"}],
        }
    ),
]


class OptOutsBody(Body):
    """Numbers that must not be texted."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"opt_outs": [{"number": "+1 650 555 0100", "source": "letter of 3 May"}]}}
    )

    opt_outs: list[OptOutEntry] = Field(min_length=1, max_length=ENTRIES_LIMIT)


class OptOutAnswer(BaseModel):
    """A number that must not be texted."""

    number: str = Field(examples=["+16505550100"])
    source: str = Field(description="`sms`: the person, by a text; `provider`; or what was told.")
    since: datetime | None = Field(description="Null: its owner was erased, and only a hash was kept.")
    channels: list[str] | None = Field(description="The only channels that it concerns; null: all texts.")


class OptOutResult(BaseModel):
    """What became of one entry."""

    index: int
    status: Literal["added", "present", "refused"]
    number: str | None = Field(description="The number as it is kept; null if the entry was refused.")
    field: str | None = Field(None, description="The field that is wrong.")
    detail: str | None = Field(None, description="Why the entry was refused, and what would help.")


class OptOutResults(BaseModel):
    """What became of each entry; those that are fit are kept, whatever is wrong with others."""

    added: int
    present: int
    refused: int
    results: list[OptOutResult]


class OptOutPage(BaseModel):
    """A page of the list, by number."""

    opt_outs: list[OptOutAnswer]
    next: str | None = Field(description="Ask for the next page with `after=` this; null: that was all.")
