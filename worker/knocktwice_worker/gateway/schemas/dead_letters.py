"""``/v1/dead-letters``: messages that nobody could process."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class DeadLetter(BaseModel):
    """A parked message."""

    id: int
    at: datetime = Field(description="When it was parked.")
    message_id: str | None = Field(description="Its id in the queue, if it had one.")
    task: str | None = Field(description="The task that it was for, if it named one.")
    reason: str = Field(description="Why it could not be processed; what may quote the message only with `reveal`.")


class DeadLetterPage(BaseModel):
    """Parked messages, the oldest first."""

    dead_letters: list[DeadLetter]
    next: int | None = Field(description="`after` of the next page.")


class DeadLetterShown(DeadLetter):
    """A parked message with what it holds."""

    characters: int = Field(description="Length of the message.")
    payload: str | None = Field(description="The message as it came, which may name people; only with `reveal`.")


class Replayed(BaseModel):
    """The message that was handed to the workers once more."""

    id: int
    task: str
