"""The push that a payload describes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages import Push

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice.tpns.problems import Problems

_ADVICE = {
    "accept_time": "is not supported; when marketing is texted is a setting of the workers, KNOCKTWICE_QUIET_HOURS",
    "show_type": "is not supported; the app decides what it does with a push while it is open",
}
_KNOWN = {"title", "content", "xg_media_resources", "android", "ios"}


def push(payload: Mapping[str, Any], problems: Problems) -> Push | None:
    """Read ``message``; ``None`` if something in it is wrong."""
    before = len(problems)
    message = problems.object(payload, "message", "message", required=True)
    if payload.get("message_type") != "notify":
        said = "is missing" if payload.get("message_type") is None else "is not supported"
        problems.add("message_type", f'{said}; it must be "notify": what is not shown cannot be answered')
    if message is None:
        return None
    problems.unknown(message, _KNOWN, "message.", _ADVICE)
    title = problems.text(message, "title", "message.title", required=True)
    content = problems.text(message, "content", "message.content", required=True)
    image = problems.text(message, "xg_media_resources", "message.xg_media_resources")
    data: dict[str, str] = {}
    link = None
    for name in ("android", "ios"):
        path = f"message.{name}"
        part = problems.object(message, name, path) or {}
        problems.unknown(
            part, {"custom_content", "action"} if name == "android" else {"custom_content"}, f"{path}.", {}
        )
        data |= _custom_content(part.get("custom_content"), f"{path}.custom_content", data, problems)
        link = link or _link(part, f"{path}.action", problems)
    if len(problems) > before or title is None or content is None:
        return None
    return Push(title, content, data, link, image)


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


def _link(part: Mapping[str, Any], path: str, problems: Problems) -> str | None:
    action = problems.object(part, "action", path)
    if action is None:
        return None
    kind = problems.number(action, "action_type", f"{path}.action_type", 1, 4, required=True)
    if kind == 2:
        browser = problems.object(action, "browser", f"{path}.browser", required=True) or {}
        problems.unknown(browser, {"url", "confirm"}, f"{path}.browser.", {})
        return problems.text(browser, "url", f"{path}.browser.url", required=True)
    if kind in (3, 4):
        problems.add(
            f"{path}.action_type", "must be 1 (open the app) or 2 (open browser.url); give others in custom_content"
        )
    return None
