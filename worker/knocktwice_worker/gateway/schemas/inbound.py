"""``/v1/inbound``: what people wrote to our senders."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field


class Text(BaseModel):
    """A text that a person wrote."""

    id: UUID
    received_at: datetime
    number: str = Field(
        description="Who wrote; masked without `reveal`, empty if they were erased.", examples=["+1650•••00"]
    )
    users: list[str] = Field(description="The people who have this number now.")
    keyword: str | None = Field(description="`STOP`, `START` or `HELP`; null: something else.")
    text: str | None = Field(description="Null without `reveal`, and once it is not kept any more.")
    characters: int | None
    to: str | None = Field(description="Your sender to which it was written.")
    project: str | None = Field(description="The project whose own sender it was written to.")
    channel: str | None = Field(examples=["sms"])
    provider: str | None = Field(examples=["acme"])
    provider_id: str = Field(description="What the provider calls it.")
    answers: str | None = Field(None, description="The notification that it answers; null: none that is known.")


class InboundPage(BaseModel):
    """A page of texts, newest first."""

    texts: list[Text]
    next: UUID | None = Field(description="Ask for the next page with `before=` this; null: that was all.")
