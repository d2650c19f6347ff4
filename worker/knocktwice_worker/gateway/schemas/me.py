"""``/v1/me`` and ``/v1/users/{user}/tokens``: what apps and pages say of their own person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from knocktwice_shared.messages import Platform
from knocktwice_shared.user_tokens import LIFETIME, LIFETIME_LIMIT, UserScope
from knocktwice_worker.gateway.schemas.fields import Body, Phone, Registration, TagValue, text_of
from knocktwice_worker.gateway.schemas.saved import Queued

#: The tag that says whether a person's notifications are on, as it was reported last.
SUBSCRIBED = "subscribed_to_push"


class TokenWanted(Body):
    """What a token shall allow, and for how long."""

    model_config = ConfigDict(json_schema_extra={"example": {"lifetime_s": 3_600, "scopes": ["devices", "tags"]}})

    lifetime_s: int = Field(
        int(LIFETIME.total_seconds()),
        ge=1,
        le=int(LIFETIME_LIMIT.total_seconds()),
        description="Seconds; a token cannot be called back.",
    )
    scopes: list[UserScope] = Field(list(UserScope), min_length=1)


class TokenMade(Body):
    """A token for one person. Give it to their app or page, and to nobody else."""

    token: str
    expires_at: datetime
    scopes: list[UserScope]


class Permission(Body):
    """Whether notifications are on, and of which device. What is said of a device needs its registration."""

    model_config = ConfigDict(json_schema_extra={"example": {"notifications_enabled": False}})

    notifications_enabled: bool = Field(description=f"Becomes the tag `{SUBSCRIBED}`, and the device's flag.")
    registration: Registration | None = Field(None, description="The device, if it has one: it is registered, too.")
    platform: Platform | None = None
    locale: Annotated[str, text_of(64)] | None = None
    time_zone: Annotated[str, text_of(64)] | None = Field(None, description="IANA name.")
    app_version: Annotated[str, text_of(64)] | None = None


class OwnTags(Body):
    """Tags of the person. Those that are not named stay, and null removes one."""

    model_config = ConfigDict(json_schema_extra={"example": {"tags": {SUBSCRIBED: True}}})

    tags: dict[Annotated[str, text_of(64)], TagValue]


class OwnPhone(Body):
    """A number that shall be the person's."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+1 650 555 0100"}})

    phone: Phone


class Code(Body):
    """The number, and the code that came to it."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+1 650 555 0100", "code": "123456"}})

    phone: Phone
    code: str = Field(pattern=r"^[0-9]{6}$")


class AppForm(BaseModel):
    """What an app of GoNative posts. It has more fields, which are not used."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "oneSignalUserId": "b2f7f966-d8cc-11e4-bed1-df8f05be55ba",
                "oneSignalPushToken": "registration-of-this-phone",
                "oneSignalSubscribed": True,
                "platform": "android",
                "appVersion": "1.0.0",
                "language": "en",
                "timeZone": "America/New_York",
            }
        },
    )

    oneSignalPushToken: Any = Field(None, description="FCM's registration token.")  # noqa: N815
    oneSignalSubscribed: Any = Field(None, description="Whether notifications are on.")  # noqa: N815
    platform: Any = Field(None, description="`android` or `ios`.")
    language: Any = None
    timeZone: Any = Field(None, description="IANA name.")  # noqa: N815
    appVersion: Any = None  # noqa: N815
    customData_knocktwice_token: Any = Field(None, description="The user token, if no header and no cookie has it.")  # noqa: N815


class NotUsed(BaseModel):
    """A field that cannot be used."""

    field: str
    detail: str = Field(description="Why.")


class AppRegistered(Queued):
    """The broker has what could be used."""

    registered: bool = Field(description="Whether a device was registered.")
    not_used: list[NotUsed]
