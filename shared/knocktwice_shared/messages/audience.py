"""``update_audience``: who people are, by what devices and numbers they are reached, and what they agreed to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from knocktwice_shared.channels import CONTENTS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.checks import normalise_phone
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_shared.names import BATCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A tag's name, in characters.
TAG_NAME_LIMIT = 64
#: Who says that a number has opted out or in, if nothing else is said.
APPLICATION = "application"


class Platform(StrEnum):
    """The platform of a registration."""

    ANDROID = "android"
    IOS = "ios"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class DeviceRegistered:
    """A registration belongs to this user from ``at`` on, and to nobody else.

    A field that is ``None`` was not said: it stays as it was. A new device has its notifications on unless something
    else is said.
    """

    user: str
    registration: str
    at: datetime
    platform: Platform | None = None
    notifications_enabled: bool | None = None
    locale: str | None = None
    time_zone: str | None = None
    app_version: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceUnregistered:
    """A registration does not belong to ``user`` any more from ``at`` on (logout); without ``user``, to nobody."""

    registration: str
    at: datetime
    user: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedOutEverywhere:
    """None of the devices that a user has at ``at`` belongs to the user any more."""

    user: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PhoneBound:
    """A user's number from ``at`` on; ``None`` unbinds it."""

    user: str
    phone: str | None
    at: datetime


#: One item of a tag.
TagItem = str | int | float | bool


#: What a tag may hold; ``None`` removes it.
TagValue = TagItem | tuple[TagItem, ...] | None


@dataclass(frozen=True, slots=True)
class TagsSet:
    """The application's changes to a user from ``at`` on. Tags that are not named stay as they are."""

    user: str
    tags: Mapping[str, TagValue]
    at: datetime
    locale: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class ConsentSet:
    """Whether a user agrees to marketing from ``at`` on, and where they said so."""

    user: str
    marketing: bool
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OptOutSet:
    """Whether a number must not be texted from ``at`` on, and who says so.

    Attributes:
        channel: the only channel that it concerns; ``None``: all texts.
    """

    phone: str
    opted_out: bool
    source: str
    at: datetime
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class UserErased:
    """All that was said about a user until ``at`` is void, and what is kept of it goes."""

    user: str
    at: datetime


AudienceChange = (
    DeviceRegistered
    | DeviceUnregistered
    | LoggedOutEverywhere
    | PhoneBound
    | TagsSet
    | ConsentSet
    | OptOutSet
    | UserErased
)


@all_at_once
def parse_audience(wire: object) -> tuple[AudienceChange, ...]:
    """Validate an ``update_audience`` message: 1 to 500 changes. Raises like :func:`parse_batch`."""
    message = checks.versioned(wire, {"v", "changes"})
    changes = checks.list_of(message.get("changes"), "changes", 1, BATCH_LIMIT)
    nothing = UserErased("", datetime.fromtimestamp(0, UTC))
    return tuple(attempt(_change, nothing, c, f"changes[{i}]") for i, c in enumerate(changes))


#: The words for the kinds of changes.
KINDS = (
    "register_device",
    "unregister_device",
    "log_out_everywhere",
    "bind_phone",
    "set_tags",
    "set_consent",
    "opt_out",
    "opt_in",
    "erase_user",
)


def _change(value: object, path: str) -> AudienceChange:
    kind = checks.object_of(value, path, None).get("change")
    if kind == "register_device":
        return _registered(value, path)
    if kind == "unregister_device":
        raw = checks.object_of(value, path, {"change", "user", "registration", "at"})
        return DeviceUnregistered(
            registration=checks.registration(raw.get("registration"), f"{path}.registration"),
            at=checks.time(raw.get("at"), f"{path}.at"),
            user=None if raw.get("user") is None else checks.text(raw["user"], f"{path}.user", 200),
        )
    if kind == "log_out_everywhere":
        raw = checks.object_of(value, path, {"change", "user", "at"})
        user, at = checks.text(raw.get("user"), f"{path}.user", 200), checks.time(raw.get("at"), f"{path}.at")
        return LoggedOutEverywhere(user, at)
    if kind == "bind_phone":
        raw = checks.object_of(value, path, {"change", "user", "phone", "at"})
        phone = raw.get("phone")
        return PhoneBound(
            user=checks.text(raw.get("user"), f"{path}.user", 200),
            phone=None if phone is None else normalise_phone(phone, f"{path}.phone"),
            at=checks.time(raw.get("at"), f"{path}.at"),
        )
    if kind == "set_tags":
        return _tags_set(value, path)
    if kind == "set_consent":
        raw = checks.object_of(value, path, {"change", "user", "marketing", "source", "at"})
        return ConsentSet(
            user=checks.text(raw.get("user"), f"{path}.user", 200),
            marketing=checks.boolean(raw.get("marketing"), f"{path}.marketing"),
            source=checks.text(raw.get("source"), f"{path}.source", 200),
            at=checks.time(raw.get("at"), f"{path}.at"),
        )
    if kind in ("opt_out", "opt_in"):
        raw = checks.object_of(value, path, {"change", "phone", "source", "channel", "at"})
        source, channel = raw.get("source"), raw.get("channel")
        if channel is not None and (not isinstance(channel, str) or channel not in CONTENTS):
            fail(f"{path}.channel", f"must be one of {', '.join(CONTENTS)}, or left out for all texts", None)
        return OptOutSet(
            phone=normalise_phone(raw.get("phone"), f"{path}.phone"),
            opted_out=kind == "opt_out",
            source=APPLICATION if source is None else checks.text(source, f"{path}.source", 200),
            at=checks.time(raw.get("at"), f"{path}.at"),
            channel=channel,
        )
    if kind == "erase_user":
        raw = checks.object_of(value, path, {"change", "user", "at"})
        return UserErased(checks.text(raw.get("user"), f"{path}.user", 200), checks.time(raw.get("at"), f"{path}.at"))
    raise InvalidMessage(f"{path}.change", f"must be one of {', '.join(KINDS)}")


def _tags_set(value: object, path: str) -> TagsSet:
    raw = checks.object_of(value, path, {"change", "user", "tags", "locale", "time_zone", "at"})
    tags = checks.json_object(raw.get("tags"), f"{path}.tags")
    texts = {k: None if raw.get(k) is None else checks.text(raw[k], f"{path}.{k}", 64) for k in ("locale", "time_zone")}
    return TagsSet(
        user=checks.text(raw.get("user"), f"{path}.user", 200),
        tags={checks.text(n, f"{path}.tags.{n}", TAG_NAME_LIMIT): _tag(v, f"{path}.tags.{n}") for n, v in tags.items()},
        at=checks.time(raw.get("at"), f"{path}.at"),
        **texts,
    )


def _tag(value: object, path: str) -> TagValue:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return tuple(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return fail(path, "must be text, a number, true, false, a list of these, or null to remove the tag", None)


def _registered(value: object, path: str) -> DeviceRegistered:
    optional = ("locale", "time_zone", "app_version")
    known = {"change", "user", "registration", "at", "platform", "notifications_enabled", *optional}
    raw = checks.object_of(value, path, known)
    platform, enabled = raw.get("platform"), raw.get("notifications_enabled")
    texts = {k: None if raw.get(k) is None else checks.text(raw[k], f"{path}.{k}", 64) for k in optional}
    return DeviceRegistered(
        user=checks.text(raw.get("user"), f"{path}.user", 200),
        registration=checks.registration(raw.get("registration"), f"{path}.registration"),
        at=checks.time(raw.get("at"), f"{path}.at"),
        platform=None if platform is None else checks.choice(Platform, platform, f"{path}.platform"),
        notifications_enabled=None if enabled is None else checks.boolean(enabled, f"{path}.notifications_enabled"),
        **texts,
    )
