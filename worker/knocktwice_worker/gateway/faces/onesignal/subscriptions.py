"""OneSignal's subscriptions and players: devices and numbers, as changes of our audience and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.gateway.faces.onesignal import languages, names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.audience.aliases import Alias
    from knocktwice_worker.audience.profile import Device, Profile

Json = dict[str, Any]

SMS = "SMS"
#: OneSignal's kinds of subscriptions that are served → our platforms.
PLATFORMS = {
    "iOSPush": "ios",
    "AndroidPush": "android",
    "ChromePush": "web",
    "FirefoxPush": "web",
    "SafariPush": "web",
    "SafariLegacyPush": "web",
    "WindowsPush": "web",
}
#: Our platforms → the kind that is shown.
_SHOWN = {"ios": "iOSPush", "android": "AndroidPush", "web": "ChromePush", None: "AndroidPush"}
#: Numbers of devices in the older API → kinds of subscriptions.
DEVICE_TYPES = {
    0: "iOSPush",
    1: "AndroidPush",
    5: "ChromePush",
    7: "SafariPush",
    8: "FirefoxPush",
    14: SMS,
    17: "SafariPush",
}
_NUMBERS = {"ios": 0, "android": 1, "web": 5, None: 1}
_PHONE_NUMBER = 14
#: Fields of a subscription that nobody needs here.
COSMETIC = frozenset(
    {
        *("sdk", "device_model", "device_os", "rooted", "test_type", "net_type", "carrier", "web_auth", "web_p256"),
        *("session_time", "session_count", "id"),
    }
)
_KNOWN = frozenset({"type", "token", "enabled", "notification_types", "app_version", *COSMETIC})
#: A token of Apple's, with which FCM can do nothing.
_APPLE = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{160}")
#: Most characters of an app's version.
_VERSION_LIMIT = 64


@dataclass(slots=True)
class Changes:
    """Changes of the audience, in the order in which they are made.

    Attributes:
        listed: as our own routes take them.
        aliases: the ids of OneSignal's that lead to what they are about.
        warnings: fields that changed nothing.
    """

    listed: list[Json] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, given: Mapping[str, Any], cosmetic: frozenset[str], path: str) -> None:
        """Warn of the fields that nobody needs here."""
        self.warnings += [f"{path}{name} was ignored: it is not kept here" for name in given if name in cosmetic]


def enabled(given: Mapping[str, Any], path: str) -> bool | None:
    """Return whether somebody wants to be notified; ``None``: nothing is said.

    Raises:
        InvalidMessage: a field is wrong.
    """
    on, kinds = given.get("enabled"), given.get("notification_types")
    if on is not None and not isinstance(on, bool):
        raise InvalidMessage(f"{path}enabled", "must be true or false")
    if kinds is not None and (not isinstance(kinds, int) or isinstance(kinds, bool)):
        raise InvalidMessage(f"{path}notification_types", "must be a whole number")
    if kinds is not None and kinds <= 0 and on is not True:
        return False
    return True if on is None and kinds is not None else on


def checked(given: object, path: str) -> Json:
    """Return a subscription without its empty fields.

    Raises:
        InvalidMessage: it is no object, or has a field that is not served.
    """
    if not isinstance(given, dict):
        raise InvalidMessage(path.rstrip("."), "must be an object")
    for name in given:
        if name not in _KNOWN:
            raise InvalidMessage(f"{path}{name}", "is not a field that is served here")
    return {name: value for name, value in given.items() if value is not None}


def kind_of(given: Mapping[str, Any], path: str) -> str:
    """Return the kind of a subscription.

    Raises:
        InvalidMessage: it is none that is served here.
    """
    kind = given.get("type")
    if kind != SMS and kind not in PLATFORMS:
        raise InvalidMessage(
            f"{path}type", f"must be {SMS} or one of {', '.join(PLATFORMS)}; nothing else is served here"
        )
    return str(kind)


def add(into: Changes, user: str, given: Mapping[str, Any], path: str) -> Alias:
    """Add the changes that make a subscription a person's, and return its alias.

    Raises:
        InvalidMessage: a field is wrong.
    """
    kind, token = kind_of(given, path), given.get("token")
    if not isinstance(token, str) or not token.strip():
        raise InvalidMessage(f"{path}token", "must be the token of a device, or a phone number")
    into.warn(given, COSMETIC, path)
    on = enabled(given, path)
    if kind == SMS:
        into.listed.append({"change": "bind_phone", "user": user, "phone": token})
        if on is False:
            into.listed.append({"change": "opt_out", "phone": token, "source": "onesignal"})
        alias = names.of_number(user)
    else:
        into.listed.append(register(user, token, given, path, platform=PLATFORMS[kind], on=on))
        alias = names.of_device(user, token)
    into.aliases.append(alias)
    return alias


def register(
    user: str, token: str, given: Mapping[str, Any], path: str, *, platform: str | None = None, on: bool | None = None
) -> Json:
    """Return the change that makes a device a person's.

    Raises:
        InvalidMessage: the token is none of FCM's, or the version is no text.
    """
    if _APPLE.fullmatch(token):
        raise InvalidMessage(f"{path}token", "is a token of Apple's; give the FCM registration token of the app")
    if token.startswith(("http://", "https://")):
        raise InvalidMessage(f"{path}token", "is an address of a browser; give the FCM registration token of the page")
    change: Json = {"change": "register_device", "user": user, "registration": token}
    version = given.get("app_version", given.get("game_version"))
    more = {
        "platform": platform,
        "notifications_enabled": on,
        "app_version": None if version is None else str(version)[:_VERSION_LIMIT],
        "locale": given.get("locale"),
        "time_zone": given.get("time_zone"),
    }
    return change | {name: value for name, value in more.items() if value is not None}


def shown(found: Profile) -> list[Json]:
    """Return a person's subscriptions as OneSignal shows them."""
    told = [_device(one) for one in found.devices]
    if found.phone is not None:
        told.append(
            {
                "id": names.number(found.user),
                "app_id": "",
                "type": SMS,
                "token": found.phone,
                "enabled": not _opted_out(found),
                "notification_types": -2 if _opted_out(found) else 1,
            }
        )
    return told


def _device(one: Device) -> Json:
    told = {
        "id": names.device(one.registration),
        "app_id": "",
        "type": _SHOWN[one.platform],
        "token": one.registration,
        "enabled": one.notifications_enabled,
        "notification_types": 1 if one.notifications_enabled else -2,
        "app_version": one.app_version,
    }
    return {name: value for name, value in told.items() if value is not None}


def _opted_out(found: Profile) -> bool:
    return found.opted_out or "sms" in found.opted_out_of


def player(found: Profile, one: Device | None) -> Json:
    """Return a device, or the person's number, as the older API shows it."""
    told: Json = {
        "id": names.number(found.user) if one is None else names.device(one.registration),
        "identifier": found.phone if one is None else one.registration,
        "device_type": _PHONE_NUMBER if one is None else _NUMBERS[one.platform],
        "language": languages.theirs(found.locale if one is None else one.locale or found.locale),
        "game_version": None if one is None else one.app_version,
        "notification_types": -2 if (_opted_out(found) if one is None else not one.notifications_enabled) else 1,
        "external_user_id": None if found.user.startswith(names.ANONYMOUS) else found.user,
        "created_at": int((found.created_at if one is None else one.registered_at).timestamp()),
        "last_active": int((found.created_at if one is None else one.last_seen_at).timestamp()),
        "invalid_identifier": False,
    }
    return told
