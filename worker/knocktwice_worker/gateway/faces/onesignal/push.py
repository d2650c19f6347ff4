"""The push of OneSignal's request for a message, as our own routes take one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages.problems import attempt, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

#: OneSignal's number for high priority; any other is normal.
_HIGH = 10
_VISIBILITY = {1: "PUBLIC", 0: "PRIVATE", -1: "SECRET"}
_ARGB = re.compile(r"#?(?:[0-9A-Fa-f]{2})?([0-9A-Fa-f]{6})")
#: OneSignal's fields that iOS takes as they are → what iOS calls them.
_APS = {
    "thread_id": "thread-id",
    "ios_category": "category",
    "ios_relevance_score": "relevance-score",
    "target_content_identifier": "target-content-id",
}


def read(body: Mapping[str, Any], texts: Mapping[str, Any]) -> Json:
    """Return the push.

    Args:
        body: the request, without its empty fields.
        texts: ``headings``, ``contents`` and ``subtitle``, as the contract takes them.
    """
    push: Json = {"title": texts.get("headings"), "body": texts.get("contents")}
    more = {
        "subtitle": texts.get("subtitle"),
        "data": attempt(_data, None, body.get("data")),
        "link": attempt(_link, None, body),
        "image": body.get("global_image"),
        "priority": None if "priority" not in body else attempt(_priority, None, body["priority"]),
        "channel_id": body.get("existing_android_channel_id", body.get("android_channel_id")),
        "icon": body.get("small_icon"),
        "color": attempt(_color, None, body.get("android_accent_color")),
        "badge": attempt(_badge, None, body),
        "android": attempt(_android, {}, body),
        "apns": attempt(_apns, {}, body),
        "webpush": _webpush(body),
    }
    return push | {name: value for name, value in more.items() if value not in (None, {})}


def _data(data: object) -> dict[str, str] | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        return fail("data", "must be an object", None)
    return {name: value if isinstance(value, str) else _json(value) for name, value in data.items()}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _link(body: Mapping[str, Any]) -> Any:
    for one in ("web_url", "app_url"):
        if "url" in body and one in body:
            return fail(one, "stands beside url; give one of the two", None)
    if "web_url" in body and "app_url" in body and body["web_url"] != body["app_url"]:
        return fail("web_url", "differs from app_url; a push has one address here, give it in url", None)
    return body.get("url", body.get("app_url", body.get("web_url")))


def _priority(value: object) -> str | None:
    if type(value) is not int:
        return fail("priority", f"must be a whole number: {_HIGH} is high, any other is normal", None)
    return "high" if value == _HIGH else "normal"


def _color(value: object) -> str | None:
    if value is None:
        return None
    found = _ARGB.fullmatch(value) if isinstance(value, str) else None
    return f"#{found[1]}" if found else fail("android_accent_color", "must be ARGB in hex, like FF00AA55", None)


def _badge(body: Mapping[str, Any]) -> Any:
    kind = body.get("ios_badgeType", "None")
    if kind == "None":
        if "ios_badgeCount" in body and "ios_badgeType" not in body:
            return fail("ios_badgeType", 'is missing beside ios_badgeCount; give "SetTo"', None)
        return None
    if kind != "SetTo":
        return fail("ios_badgeType", 'must be "SetTo" or "None"; nobody knows here what the number was before', None)
    return body["ios_badgeCount"] if "ios_badgeCount" in body else fail("ios_badgeCount", "is missing", None)


def _android(body: Mapping[str, Any]) -> Json:
    notification: Json = {}
    if "big_picture" in body:
        notification["image"] = body["big_picture"]
    if "android_sound" in body:
        notification["sound"] = body["android_sound"]
    if "android_visibility" in body:
        shown = body["android_visibility"]
        if type(shown) is not int or shown not in _VISIBILITY:
            fail("android_visibility", "must be 1, 0 or -1", None)
        notification["visibility"] = _VISIBILITY.get(shown)
    return {"notification": notification} if notification else {}


def _apns(body: Mapping[str, Any]) -> Json:
    aps: Json = {theirs: body[name] for name, theirs in _APS.items() if name in body}
    if "ios_interruption_level" in body:
        aps["interruption-level"] = str(body["ios_interruption_level"]).replace("_", "-")
    if "ios_sound" in body:
        if body["ios_sound"] != "nil":
            aps["sound"] = body["ios_sound"]
        else:
            fail("ios_sound", 'cannot be "nil" here: the sound of a push cannot be left out on iPhones alone', None)
    if body.get("content_available"):
        aps["content-available"] = 1
    told: Json = {"payload": {"aps": aps}} if aps else {}
    if "ios_attachments" in body:
        pictures = list(body["ios_attachments"].values()) if isinstance(body["ios_attachments"], dict) else []
        if len(pictures) != 1 or not isinstance(pictures[0], str):
            fail("ios_attachments", "must be an object with one address; a push has one picture here", None)
        else:
            told["fcm_options"] = {"image": pictures[0]}
    return told


def _webpush(body: Mapping[str, Any]) -> Json:
    names = {"chrome_web_image": "image", "chrome_web_icon": "icon", "chrome_web_badge": "badge"}
    notification = {ours: body[theirs] for theirs, ours in names.items() if theirs in body}
    return {"notification": notification} if notification else {}
