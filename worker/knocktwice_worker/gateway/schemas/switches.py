"""``/v1/pauses`` and ``/v1/settings``: what operators have switched."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class PauseAnswer(BaseModel):
    """A pause: what waits, and why. A field of its scope that is null does not matter."""

    id: int
    channel: str | None = Field(description="`push`, `sms` and so on; null: any.")
    provider: str | None
    sender: str | None
    country: str | None = Field(description="ISO 3166 code of the numbers' country.")
    template: str | None
    category: str | None
    drains: bool = Field(description="Messages that are already decided still go.")
    reason: str
    since: datetime
    until: datetime | None = Field(description="When it ends by itself.")
    ended_at: datetime | None = Field(description="When it ended; messages may still be waking.")
    waiting: int = Field(description="Messages that wait for it now.")


class SettingAnswer(BaseModel):
    """A setting that an operator has changed without a restart."""

    name: str = Field(description="Its environment variable.")
    value: str = Field(description="Its value, as the variable would have it.")
    since: datetime


class SwitchList(BaseModel):
    """What is paused, and which settings are changed."""

    pauses: list[PauseAnswer]
    settings: list[SettingAnswer]


class Paused(BaseModel):
    """The pause that was set."""

    id: int


class Resumed(BaseModel):
    """The pauses that were ended."""

    ended: list[int]


class AuditLine(BaseModel):
    """What an operator did."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: dict[str, Any]
    reason: str


class AuditPage(BaseModel):
    """The latest lines, the newest first."""

    lines: list[AuditLine]
    next: int | None = Field(description="`before` of the next page.")
