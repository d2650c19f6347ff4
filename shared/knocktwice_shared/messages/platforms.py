"""FCM's own fields of a push for one platform: ``android``, ``apns`` and ``webpush``, as its HTTP v1 API has them.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages — a test holds the tables here against Google's
published discovery document.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Texts = Callable[[object, str], dict[str, str]]


class Is(Enum):
    """The kinds of values that FCM takes for its fields."""

    TEXT = "text"
    FLAG = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a number from 0 to 1"
    DURATION = 'a duration in seconds, like "3.5s"'
    MOMENT = "a time, like 2026-11-21T09:30:00Z"
    LIST = "a list of texts"
    DURATIONS = 'a list of durations, like ["0.2s", "0.1s"]'
    #: Texts by name, which go to the app.
    DATA = "texts by name"
    #: Texts by name, whose names are the same in upper and lower case.
    HEADERS = "texts by their names"
    #: Whatever JSON the platform understands.
    ANY = "an object"


#: Fields by name: what they take, the words that they may be, or the fields inside.
Fields = dict[str, Any]

_COLOR: Fields = dict.fromkeys(("red", "green", "blue", "alpha"), Is.NUMBER)
_LABEL: Fields = {"analytics_label": Is.TEXT}

PLATFORMS: Mapping[str, Fields] = {
    "android": {
        "collapse_key": Is.TEXT,
        "priority": ("NORMAL", "HIGH"),
        "ttl": Is.DURATION,
        "restricted_package_name": Is.TEXT,
        "data": Is.DATA,
        "notification": {
            "title": Is.TEXT,
            "body": Is.TEXT,
            "icon": Is.TEXT,
            "color": Is.TEXT,
            "sound": Is.TEXT,
            "tag": Is.TEXT,
            "click_action": Is.TEXT,
            "body_loc_key": Is.TEXT,
            "body_loc_args": Is.LIST,
            "title_loc_key": Is.TEXT,
            "title_loc_args": Is.LIST,
            "channel_id": Is.TEXT,
            "ticker": Is.TEXT,
            "sticky": Is.FLAG,
            "event_time": Is.MOMENT,
            "local_only": Is.FLAG,
            "notification_priority": (
                *("PRIORITY_UNSPECIFIED", "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH"),
                "PRIORITY_MAX",
            ),
            "default_sound": Is.FLAG,
            "default_vibrate_timings": Is.FLAG,
            "default_light_settings": Is.FLAG,
            "vibrate_timings": Is.DURATIONS,
            "visibility": ("VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"),
            "notification_count": Is.WHOLE,
            "light_settings": {"color": _COLOR, "light_on_duration": Is.DURATION, "light_off_duration": Is.DURATION},
            "image": Is.TEXT,
            "bypass_proxy_notification": Is.FLAG,
            "proxy": ("PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
        },
        "fcm_options": _LABEL,
        "direct_boot_ok": Is.FLAG,
        "bandwidth_constrained_ok": Is.FLAG,
        "restricted_satellite_ok": Is.FLAG,
    },
    "apns": {
        "headers": Is.HEADERS,
        "payload": Is.ANY,
        "fcm_options": {**_LABEL, "image": Is.TEXT},
        "live_activity_token": Is.TEXT,
    },
    "webpush": {
        "headers": Is.HEADERS,
        "data": Is.DATA,
        "notification": Is.ANY,
        "fcm_options": {**_LABEL, "link": Is.TEXT},
    },
}

_REPLACES = "is knocktwice's own: by it a repeated push replaces the first one, and a needless one is taken back"
_LIVES = "is knocktwice's own; give ttl_s, how long the push may wait for its device"
#: Places that are ours → why. Names of headers are in lower case.
_OURS: Mapping[tuple[str, ...], str] = {
    ("android", "collapse_key"): _REPLACES,
    ("android", "ttl"): _LIVES,
    ("android", "notification", "tag"): _REPLACES,
    ("apns", "headers", "apns-collapse-id"): _REPLACES,
    ("apns", "headers", "apns-expiration"): _LIVES,
    ("apns", "payload", "knocktwice_id"): _REPLACES,
    ("apns", "payload", "knocktwice_receipt"): _REPLACES,
    ("apns", "payload", "knocktwice_withdraw"): _REPLACES,
    ("webpush", "headers", "topic"): _REPLACES,
    ("webpush", "headers", "ttl"): _LIVES,
    ("webpush", "notification", "tag"): _REPLACES,
}

_DURATION = re.compile(r"[0-9]+(\.[0-9]{1,9})?s")
_CAPITAL = re.compile(r"[A-Z]")


def checked(platform: str, value: object, path: str, data: Texts) -> dict[str, Any]:
    """Check a platform's fields, and return them with FCM's own names (``channel_id`` for ``channelId``).

    Args:
        platform: ``android``, ``apns`` or ``webpush``.
        value: an object.
        path: what an error calls it.
        data: checks texts that go to the app.

    Raises:
        InvalidMessage: FCM has no such field, it takes something else, or the field is ours.
    """
    checks.require_storable(checks.object_of(value, path, None), path)
    found = typed(PLATFORMS[platform], value, path, data)
    for place, why in _OURS.items():
        if place[0] == platform and _is_there(found, place[1:]):
            raise InvalidMessage(".".join((path, *place[1:])), why)
    aps = found.get("payload", {}).get("aps")
    if aps is not None and not isinstance(aps, dict):
        raise InvalidMessage(f"{path}.payload.aps", "must be an object")
    return found


def typed(fields: Fields, value: object, path: str, data: Texts) -> dict[str, Any]:
    """Compare an object with FCM's fields, and return it with FCM's own names.

    Raises:
        InvalidMessage: there is no such field, or it takes something else.
    """
    found: dict[str, Any] = {}
    for name, item in checks.object_of(value, path, None).items():
        own = _CAPITAL.sub(lambda m: f"_{m[0].lower()}", name)
        if own not in fields:
            raise InvalidMessage(f"{path}.{name}", f"is no field of FCM's; known here: {', '.join(fields)}")
        if own in found:
            raise InvalidMessage(f"{path}.{name}", f"is there twice; it is the same as {own}")
        if item is not None:
            found[own] = _typed(fields[own], item, f"{path}.{name}", data)
    return found


def _typed(takes: Any, value: Any, path: str, data: Texts) -> Any:
    if isinstance(takes, dict):
        return typed(takes, value, path, data)
    if isinstance(takes, tuple):
        return _word(takes, value, path)
    match takes:
        case Is.DATA:
            return data(value, path)
        case Is.HEADERS:
            return _headers(value, path)
        case Is.ANY:
            return checks.object_of(value, path, None)
        case _ if _fits(takes, value):
            return value
    raise InvalidMessage(path, f"must be {takes.value}")


def _fits(takes: Is, value: Any) -> bool:
    match takes:
        case Is.FLAG:
            return isinstance(value, bool)
        case Is.WHOLE:
            return type(value) is int and 0 <= value < 2**31
        case Is.NUMBER:
            return type(value) in (int, float) and 0 <= value <= 1
        case Is.DURATION:
            return isinstance(value, str) and _DURATION.fullmatch(value) is not None
        case Is.LIST:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case Is.DURATIONS:
            return isinstance(value, list) and all(_fits(Is.DURATION, item) for item in value)
        case Is.MOMENT:
            return _is_moment(value)
        case _:
            return isinstance(value, str)


def _is_moment(value: object) -> bool:
    try:
        checks.time(value, "")
    except InvalidMessage:
        return False
    return True


def _word(words: tuple[str, ...], value: object, path: str) -> str:
    if not isinstance(value, str) or value.upper() not in words:
        raise InvalidMessage(path, f"must be one of {', '.join(words)}")
    return value


def _headers(value: object, path: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, item in checks.object_of(value, path, None).items():
        text = checks.text(item, f"{path}.{name}", 4_096, empty=True)
        if name.lower() in {other.lower() for other in headers}:
            raise InvalidMessage(f"{path}.{name}", "is there twice; upper and lower case are the same")
        headers[name] = text
    return headers


def _is_there(found: Mapping[str, Any], place: tuple[str, ...]) -> bool:
    inside: Any = found
    for name in place:
        if not isinstance(inside, dict):
            return False
        inside = next(
            (v for n, v in inside.items() if n == name or (n.lower() == name and place[0] == "headers")), None
        )
    return inside is not None
