"""The answers about notifications: one with its story, and the history page by page."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from knocktwice_worker.gateway.schemas.fields import ProjectName, TakenBy
from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.reporting.waiting import Why


class StepAnswer(BaseModel):
    """The state of one step."""

    step: int
    channel: str
    state: str
    reason: str | None
    due_at: datetime | None
    provider: TakenBy
    provider_id: str | None = Field(description="What that provider calls it.")
    provider_status: str | None = Field(
        description="What the provider reported last; `unknown` if it never did within its time."
    )
    provider_error: int | str | None = Field(
        description="The provider's error code, a whole number or a word.", examples=[30003, "INVALID_NUMBER"]
    )
    price: str | None = Field(description="What the provider charged, with the currency.", examples=["0.0083 USD"])


class MomentAnswer(BaseModel):
    """One line of the ledger."""

    at: datetime
    kind: str = Field(description="What happened, or the verdict.")
    sentence: str = Field(description="The same for people.")


class Summary(BaseModel):
    """The state of a notification."""

    id: UUID
    state: NotificationState
    reason: str | None
    user: str | None
    created_at: datetime
    finished_at: datetime | None
    project: ProjectName
    test: bool = Field(description="Whether it was made with a test key, so that no provider was called.")
    provider_status: str | None = Field(
        description="What became of the last message that a provider took: `undelivered`, though the state is `texted`."
    )


class WaitAnswer(BaseModel):
    """What an open step waits for now."""

    step: int
    channel: str
    why: Why = Field(description="What it waits for.")
    until: datetime | None = Field(description="Until when, or when it is looked at next; null: any moment.")
    sentence: str = Field(description="The same for people.")


class DeviceAnswer(BaseModel):
    """A device that the push was for."""

    place: int | None = Field(
        description="Its place among the `registrations` of the request, from 0; null: it is one of the person's."
    )
    registration: str = Field(description="The ending of the registration.", examples=["…a1b2c3"])
    state: str = Field(description="`open`, `sent` or `rejected`.")
    reason: str | None = Field(description="Why it was rejected, or is tried again.")


class UnsentAnswer(BaseModel):
    """A message of a test that a provider would have got."""

    step: int = Field(description="0 is the push.")
    channel: str
    to: str = Field(description="The number, masked, or the ending of the registration.", examples=["+1650•••00"])
    sender: str | None = Field(description="From whom; null: a push, or nobody is set.")
    content: dict[str, str] = Field(description="What it says; empty once it was deleted.")
    parts: int | None = Field(description="The SMS parts that it would have been paid by.")
    price: str | None = Field(description="What these cost by the price table.", examples=["0.0158"])


class StoryAnswer(Summary):
    """A notification with its steps and what happened, oldest first. Numbers are masked, texts of real ones left out."""

    id: UUID
    category: str
    steps: list[StepAnswer]
    moments: list[MomentAnswer]
    waits: list[WaitAnswer] = Field(description="What its open steps wait for now; empty once it has ended.")
    devices: list[DeviceAnswer] = Field(description="For which the push was, in the order of the request.")
    would_have_sent: list[UnsentAnswer] = Field(description="Of a test: what providers would have got.")


class HistoryStep(BaseModel):
    """The state of one step of a notification."""

    channel: str
    state: str
    reason: str | None
    provider: TakenBy
    provider_status: str | None = Field(description="What the provider reported last.")
    provider_error: int | str | None = Field(description="The provider's error code, a whole number or a word.")


class HistoryEntry(Summary):
    """One notification of the history."""

    category: str
    template: str | None
    key: str | None
    steps: list[HistoryStep]


class History(BaseModel):
    """A page of the history, newest first."""

    messages: list[HistoryEntry]
    next: UUID | None = Field(description="Ask for the next page with `before=` this; null: that was all.")
