"""``GET /v1/users/{user}``: who a person is, and who has a number."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from knocktwice_worker.audience.profile import SAME_NUMBER_LIMIT
from knocktwice_worker.gateway.schemas.fields import Body, Phone


class KnownDevice(BaseModel):
    """An installation of the app."""

    registration: str = Field(description="FCM's address of it; without the scope `audience` only its ending.")
    platform: str | None
    notifications_enabled: bool
    locale: str | None
    time_zone: str | None
    app_version: str | None
    registered_at: datetime = Field(description="Since when, or since which change, it is the person's.")
    last_seen_at: datetime = Field(description="When it was registered or reported something last, to the day.")


class Devices(BaseModel):
    """A person's devices, the last used first."""

    devices: list[KnownDevice]


class KnownConsent(BaseModel):
    """Whether a person agrees to marketing by SMS."""

    granted: bool
    source: str | None = Field(description="Where they said so; null without the scope `audience`.")
    at: datetime | None = Field(description="When it was said last; null: never.")


class Person(BaseModel):
    """A person."""

    user: str
    devices: list[KnownDevice]
    phone: str | None = Field(
        description="In E.164; without the scope `audience` like `+1650•••00`. Null: there is none.",
        examples=["+16505550100"],
    )
    country: str | None = Field(description="Of the number, as ISO 3166 has it.")
    opted_out: bool = Field(description="Whether the number asked not to be texted.")
    opted_out_of: list[str] = Field(description="The channels over which it asked not to be texted.")
    consent: KnownConsent
    tags: dict[str, Any]
    locale: str | None = Field(description="What was said of the person, not of a device.")
    time_zone: str | None
    created_at: datetime


class FindBody(Body):
    """A number."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+1 650 555 0100"}})

    phone: Phone


class Found(BaseModel):
    """Who has the number."""

    users: Annotated[list[str], Field(max_length=SAME_NUMBER_LIMIT, description="By id.")]
