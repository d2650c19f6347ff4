"""The push that a payload describes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knocktwice.tpns import fields
from knocktwice_shared.messages import SILENT, Push

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice.tpns.problems import Problems

_ADVICE = {
    "accept_time": "is not supported; when marketing is texted is a setting of the workers, KNOCKTWICE_QUIET_HOURS",
}
_KNOWN = {"title", "content", "xg_media_resources", "android", "ios", "custom_content"}
#: ``badge_type`` of an iPhone: one more than before.
_COUNT_UP = -2
_COUNTED = "is ignored; -2 (one more) cannot be sent by FCM: give the number, or -1 to leave it"
_ANDROID = {"custom_content", "action", "n_ch_id", "ring", "ring_raw", "small_icon", "icon_color"}
_IOS = {"custom_content", "custom", "aps", "badge_type"}
#: The least and the largest ``badge_type``.
_BADGE_LIMITS = (_COUNT_UP, 2**31 - 1)
#: Fields of ``aps`` that go to iPhones as they are.
_OWN = ("sound", "category", "thread-id", "interruption-level")
_APS = {*_OWN, "alert", "badge_type", "mutable-content"}


def push(payload: Mapping[str, Any], problems: Problems, lost: Problems) -> Push | None:
    """Read ``message``; ``None`` if something in it is wrong.

    Args:
        problems: gets what is wrong.
        lost: gets the wishes about looks that cannot be met.
    """
    before = len(problems)
    message = problems.object(payload, "message", "message", required=True)
    if payload.get("message_type") != "notify":
        said = "is missing" if payload.get("message_type") is None else "is not supported"
        problems.add("message_type", f'{said}; it must be "notify": what is not shown cannot be answered')
    if message is None:
        return None
    _sort_out(message, _KNOWN, "message.", problems, lost)
    title = problems.text(message, "title", "message.title", required=True)
    content = problems.text(message, "content", "message.content", required=True)
    image = problems.text(message, "xg_media_resources", "message.xg_media_resources")
    data = _custom_content(message.get("custom_content"), "message.custom_content", {}, problems)
    looks: dict[str, Any] = {}
    link = None
    badges: dict[str, Any] = {}
    _badge(payload, "badge_type", badges, problems, lost)
    for name in ("android", "ios"):
        path = f"message.{name}"
        part = problems.object(message, name, path) or {}
        if name == "android":
            _sort_out(part, _ANDROID, f"{path}.", problems, lost)
            looks |= _android(part, path, problems)
        else:
            looks |= _ios(part, path, badges, problems, lost)
            data |= _custom_content(_custom_of_ios(part, lost), path, data, problems)
        data |= _custom_content(part.get("custom_content"), f"{path}.custom_content", data, problems)
        link = link or _link(part, f"{path}.action", problems, lost)
    if len(problems) > before or title is None or content is None:
        return None
    return Push(title, content, data, link, image, **looks, **badges)


def _sort_out(part: Mapping[str, Any], known: set[str], path: str, problems: Problems, lost: Problems) -> None:
    others = {name: value for name, value in part.items() if not fields.is_lost(name, value, path, lost)}
    problems.unknown(others, known, path, _ADVICE)


def _android(part: Mapping[str, Any], path: str, problems: Problems) -> dict[str, Any]:
    """Read how it looks and sounds on Android.

    Without a ring of Android's own it has none on iPhones, unless ``aps`` says.
    """
    looks = {
        "channel_id": _name(part, "n_ch_id", path, problems),
        "icon": _name(part, "small_icon", path, problems),
        "sound": _name(part, "ring_raw", path, problems),
    }
    color = problems.number(part, "icon_color", f"{path}.icon_color", 0, 0xFFFFFF)
    if color:
        looks["color"] = f"#{color:06x}"
    if problems.number(part, "ring", f"{path}.ring", 0, 1) == 0:
        looks["sound"] = SILENT
    return {name: value for name, value in looks.items() if value is not None}


def _ios(
    part: Mapping[str, Any], path: str, badges: dict[str, Any], problems: Problems, lost: Problems
) -> dict[str, Any]:
    """Read how it looks and sounds on iPhones. What is of iPhones alone stays theirs."""
    aps = problems.object(part, "aps", f"{path}.aps") or {}
    problems.unknown(aps, _APS, f"{path}.aps.", {})
    alert = problems.object(aps, "alert", f"{path}.aps.alert") or {}
    problems.unknown(alert, {"subtitle"}, f"{path}.aps.alert.", {})
    looks: dict[str, Any] = {}
    if subtitle := _name(alert, "subtitle", f"{path}.aps.alert", problems):
        looks["subtitle"] = subtitle
    for holder, place in ((part, path), (aps, f"{path}.aps")):
        _badge(holder, f"{place}.badge_type", badges, problems, lost)
    own = {name: text for name in _OWN if (text := _name(aps, name, f"{path}.aps", problems))}
    return looks | {"apns": {"payload": {"aps": own}}} if own else looks


def _badge(holder: Mapping[str, Any], path: str, badges: dict[str, Any], problems: Problems, lost: Problems) -> None:
    badge = problems.number(holder, "badge_type", path, *_BADGE_LIMITS)
    if badge == _COUNT_UP:
        lost.add(path, _COUNTED)
    elif badge is not None and badge >= 0:
        badges["badge"] = badge


def _custom_of_ios(part: Mapping[str, Any], lost: Problems) -> dict[str, Any] | str:
    """Return what the app is handed beside ``aps``: Tencent passes on every name that it does not know."""
    own = {
        name: value
        for name, value in part.items()
        if value is not None and name not in _IOS and not fields.is_lost(name, value, "message.ios.", lost)
    }
    custom = part.get("custom")
    if isinstance(custom, dict):
        return own | custom
    return own | ({} if custom in (None, "") else {"custom": custom})


def _name(holder: Mapping[str, Any], name: str, path: str, problems: Problems) -> str | None:
    """Read a text that says nothing where it is empty."""
    return problems.text(holder, name, f"{path}.{name}") if holder.get(name) else None


def _custom_content(value: object, path: str, before: Mapping[str, str], problems: Problems) -> dict[str, str]:
    """Read what the app is handed: JSON as text, or an object. FCM takes texts only, so other values become JSON."""
    try:
        decoded = json.loads(value) if isinstance(value, str) and value.strip() else value or {}
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        problems.add(path, "must be a JSON object, as text or as it is")
        return {}
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in decoded.items()}
    problems_of = [name for name in texts if before.get(name, texts[name]) != texts[name]]
    for name in problems_of:
        problems.add(f"{path}.{name}", "differs between android and ios; all devices of a person are told the same")
    return texts


def _link(part: Mapping[str, Any], path: str, problems: Problems, lost: Problems) -> str | None:
    action = problems.object(part, "action", path)
    if action is None:
        return None
    kind = problems.number(action, "action_type", f"{path}.action_type", 1, 4, required=True)
    if kind == 1 and action.get("activity"):
        lost.add(f"{path}.activity", "is ignored; the app is opened, and finds what to show in custom_content")
    if kind == 2:
        browser = problems.object(action, "browser", f"{path}.browser", required=True) or {}
        problems.unknown(browser, {"url", "confirm"}, f"{path}.browser.", {})
        return problems.text(browser, "url", f"{path}.browser.url", required=True)
    if kind == 3:
        return problems.text(action, "intent", f"{path}.intent", required=True)
    if kind == 4:
        told = "must be 1 (open the app), 2 (open browser.url) or 3 (open intent); give others in custom_content"
        problems.add(f"{path}.action_type", told)
    return None
