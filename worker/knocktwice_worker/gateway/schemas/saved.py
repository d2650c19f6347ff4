"""The answers to requests that save or queue something, which several groups of routes share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Queued(BaseModel):
    """The broker has it; a worker will do it in a moment."""

    status: Literal["accepted"] = "accepted"


class Changed(BaseModel):
    """The result of a request that saved something."""

    name: str
    change: Literal["created", "updated", "unchanged"]
