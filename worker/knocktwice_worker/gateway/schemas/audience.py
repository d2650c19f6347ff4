"""``/v1/users`` and ``/v1/audience``: devices, numbers, tags and consent."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from knocktwice_shared.messages import Platform
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.gateway.schemas.changes import Change
from knocktwice_worker.gateway.schemas.fields import Body, Phone, TagValue, text_of
from knocktwice_worker.gateway.schemas.saved import Queued, Unfit


class Device(Body):
    """A device of a person."""

    model_config = ConfigDict(json_schema_extra={"example": {"platform": "android", "notifications_enabled": True}})

    platform: Platform | None = None
    notifications_enabled: bool | None = Field(None, description="Left out: as it was; of a new device: true.")
    locale: Annotated[str, text_of(64)] | None = None
    time_zone: Annotated[str, text_of(64)] | None = Field(None, description="IANA name.")
    app_version: Annotated[str, text_of(64)] | None = None


class PhoneBody(Body):
    """A person's number; null forgets it."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+1 650 555 0100"}})

    phone: Phone | None


class Tags(Body):
    """Changes to a person. Tags that are not named stay, and null removes one."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"tags": {"plan": "gold", "interests": ["tea"]}, "locale": "de-AT"}}
    )

    tags: dict[Annotated[str, text_of(64)], TagValue]
    locale: Annotated[str, text_of(64)] | None = None
    time_zone: Annotated[str, text_of(64)] | None = None


class Consent(Body):
    """Whether a person agrees to marketing by SMS, and where they said so."""

    model_config = ConfigDict(json_schema_extra={"example": {"granted": True, "source": "checkout, box 2"}})

    granted: bool
    source: Annotated[str, text_of(200)]


class Changes(Body):
    """Up to 500 changes of people, devices, numbers, tags and consent, as the contract has them.

    Those that cannot be made are named, the others are made.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "changes": [
                    {"change": "register_device", "user": "u-17", "registration": "token-of-a-phone"},
                    {"change": "bind_phone", "user": "u-17", "phone": "+1 650 555 0100"},
                ]
            }
        }
    )

    changes: list[Change] = Field(min_length=1, max_length=BATCH_LIMIT)
    strict: bool = Field(False, description="Make all or none. Left out: the fit ones are made, the others named.")


class ChangesTaken(Queued):
    """The broker has the fit ones; a worker will make them in a moment."""

    accepted: int = Field(description="How many were taken.")
    refused: list[Unfit] = Field(description="The problems of the others. Sending them again does not help.")
