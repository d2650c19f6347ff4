"""``/v1/brakes``: brakes, and the messages that they hold."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class HeldMessages(BaseModel):
    """Messages that a brake holds, or held until now."""

    messages: int
    cost: float = Field(description="Of those whose country has a price.")
    unpriced: list[str] = Field(description="Countries without a price; empty as well if no prices are set.")


class BrakeAnswer(BaseModel):
    """A brake. Shares are from 0 to 1."""

    id: int
    state: str = Field(description="`on`; `over`: the share is usual again; `released`: by an operator.")
    kind: str = Field(
        description="What is wrong: pushes are `refused`, `undelivered` or `unclicked`, or it is `pumping`."
    )
    template: str | None = Field(description="The template that it covers; empty: none; null: any.")
    platform: str | None = Field(description="The platform that it covers; null: any.")
    app_version: str | None = Field(description="The version of the app that it covers; empty: not known; null: any.")
    prefix: str | None = Field(description="The first digits of the numbers that it covers; null: any.")
    project: str | None = Field(description="The project that it covers; empty: none; null: any.")
    since: datetime
    ended_at: datetime | None = Field(description="Since when it holds nothing new.")
    grace_until: datetime | None = Field(description="Until when nothing that it covered is held again.")
    pushes: int = Field(description="The pushes, or messages, by which it tripped.")
    share: float = Field(description="The share of these that falls back.")
    usual: float = Field(description="The share that usually does.")
    why: str = Field(description="The same in words.")
    held: int = Field(description="Messages that it holds now.")
    would_have_held: int = Field(description="Messages that went, because the settings only watch their kind.")
    cost: HeldMessages


class BrakeList(BaseModel):
    """Brakes that are on or hold messages, or all."""

    brakes: list[BrakeAnswer]
