"""``/v1/segments``: saved filters, and who belongs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from knocktwice_worker.gateway.schemas.fields import Body

_FILTER: JsonDict = {"field": "tags.interests", "op": "contains", "value": "tea"}


class SegmentBody(Body):
    """A saved filter."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "description": "Who likes tea."}})

    filter: dict[str, Any]
    description: Annotated[str, Field(max_length=1_000)] = ""


class SegmentPreviewBody(Body):
    """A filter to be tried out."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": _FILTER, "sample": 5}})

    filter: dict[str, Any]
    sample: int = Field(0, ge=0, le=100, description="Ids of so many of them, drawn at random.")


class SegmentAnswer(BaseModel):
    """A saved filter."""

    name: str
    description: str
    filter: dict[str, Any]
    updated_at: datetime


class SegmentList(BaseModel):
    """All segments, by name."""

    segments: list[SegmentAnswer]


class MembersAnswer(BaseModel):
    """The number of people in the segment now, and the ids of some of them."""

    count: int
    sample: list[str]
