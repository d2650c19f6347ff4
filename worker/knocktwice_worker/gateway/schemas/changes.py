"""The changes of ``POST /v1/audience`` one by one, for the OpenAPI document; the contract's validator checks them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from knocktwice_shared.messages import Platform
from knocktwice_worker.gateway.schemas.fields import Body, Phone, Registration, TagValue, Time, UserId, text_of
from knocktwice_worker.gateway.schemas.opt_outs import Channel

_Text = Annotated[str, text_of(64)]
_Source = Annotated[str, text_of(200), Field(description="Who says so, or where it was said.")]


class _Change(Body):
    at: Time = Field(
        default_factory=lambda: datetime.now(UTC),
        description="From when on it holds; left out, now. Of two the later counts.",
    )


class RegisterDevice(_Change):
    """A device is this user's from now on, and nobody else's."""

    change: Literal["register_device"]
    user: UserId
    registration: Registration
    platform: Platform | None = None
    notifications_enabled: bool | None = Field(None, description="Left out: as it was; of a new device: true.")
    locale: _Text | None = None
    time_zone: _Text | None = Field(None, description="IANA name.")
    app_version: _Text | None = None


class UnregisterDevice(_Change):
    """A device is not this user's any more; without a user, nobody's."""

    change: Literal["unregister_device"]
    registration: Registration
    user: UserId | None = None


class LogOutEverywhere(_Change):
    """None of the user's devices is the user's any more."""

    change: Literal["log_out_everywhere"]
    user: UserId


class BindPhone(_Change):
    """A user's number for SMS; null, or none, forgets it."""

    change: Literal["bind_phone"]
    user: UserId
    phone: Phone | None = None


class SetTags(_Change):
    """Changes to a user's tags. Tags that are not named stay, and null removes one."""

    change: Literal["set_tags"]
    user: UserId
    tags: dict[_Text, TagValue]
    locale: _Text | None = None
    time_zone: _Text | None = Field(None, description="IANA name.")


class SetConsent(_Change):
    """Whether a user agrees to marketing by SMS."""

    change: Literal["set_consent"]
    user: UserId
    marketing: bool
    source: _Source


class OptOut(_Change):
    """A number must not be texted any more."""

    change: Literal["opt_out"]
    phone: Phone
    source: _Source | None = None
    channel: Channel | None = Field(None, description="The only channel that it concerns; left out: all texts.")


class OptIn(_Change):
    """A number may be texted again."""

    change: Literal["opt_in"]
    phone: Phone
    source: _Source | None = None
    channel: Channel | None = Field(None, description="The only channel that it concerns; left out: all texts.")


class EraseUser(_Change):
    """A person is erased everywhere."""

    change: Literal["erase_user"]
    user: UserId


Change = Annotated[
    RegisterDevice
    | UnregisterDevice
    | LogOutEverywhere
    | BindPhone
    | SetTags
    | SetConsent
    | OptOut
    | OptIn
    | EraseUser,
    Field(discriminator="change"),
]
