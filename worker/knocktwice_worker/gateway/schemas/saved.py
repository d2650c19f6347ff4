"""The answers to requests that save or queue something, which several groups of routes share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Queued(BaseModel):
    """The broker has it; a worker will do it in a moment."""

    status: Literal["accepted"] = "accepted"


class Unfit(BaseModel):
    """An entry of a request that was not taken."""

    index: int = Field(description="Its place in the request, from 0.")
    field: str = Field(description="What is wrong, by its path.")
    detail: str = Field(description="Why.")


class Changed(BaseModel):
    """The result of a request that saved something."""

    name: str
    change: Literal["created", "updated", "unchanged"]
