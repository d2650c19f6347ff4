"""``/v1/segments``: saved filters, and who belongs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.config import JsonDict

from knocktwice_worker.audience import segment_filter
from knocktwice_worker.gateway.schemas.fields import Body, Described

_FILTER: JsonDict = {"field": "tags.interests", "op": "contains", "value": "tea"}


class Filter(RootModel[segment_filter.Filter]):
    """The people whom a segment is about: one condition, or filters joined by `and`, `or` and `not`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FILTER, {"not": _FILTER}]})


class SegmentBody(Body):
    """A saved filter."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "description": "Who likes tea."}})

    filter: Filter
    description: Annotated[str, Field(max_length=1_000)] = ""


class SegmentPreviewBody(Body):
    """A filter to be tried out."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "sample": 5}})

    filter: Filter
    sample: int = Field(0, ge=0, le=100, description="Ids of so many of them, drawn at random.")


class SegmentAnswer(BaseModel):
    """A saved filter."""

    name: str
    description: str
    filter: Annotated[dict[str, Any], Described(Filter)]
    updated_at: datetime


class SegmentList(BaseModel):
    """All segments, by name."""

    segments: list[SegmentAnswer]


class MembersAnswer(BaseModel):
    """The number of people in the segment now, and the ids of some of them."""

    count: int
    sample: list[str]
