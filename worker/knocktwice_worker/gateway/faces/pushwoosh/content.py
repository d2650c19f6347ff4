"""A message of ``createMessage``, written down as our own requests have it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_worker.gateway.faces.pushwoosh.texts import Texts, default_locale
from knocktwice_worker.notation import time_zones

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.gateway.faces.pushwoosh.audience import Audience

Json = dict[str, Any]

#: Fields that are read.
_READ = {
    *("send_date", "timezone", "ignore_user_timezone", "content", "title", "subtitle", "link", "data", "preset"),
    *("devices", "users", "platforms", "filter", "conditions", "conditions_operator", "dynamic_content_placeholders"),
    *("campaign", "send_rate", "transactionId", "knocktwice"),
    *("ios_title", "ios_subtitle", "ios_badges", "ios_sound", "ios_category_id", "ios_thread_id", "ios_ttl"),
    *("ios_attachment", "ios_interruption_level"),
    *("android_header", "android_sound", "android_icon", "android_banner", "android_gcm_ttl", "android_priority"),
    *("android_delivery_priority", "android_channel", "android_ibc"),
}
#: Fields of our own, in ``knocktwice``.
_OWN = {"sms", "steps", "category", "valid_for_s", "valid_for", "key", "reference"}
#: Fields whose wish cannot be met, though the message can go: the beginnings of their names → why.
_IGNORED = {
    "minimize_link": "links in an SMS are shortened by /v1 alone",
    "inbox_": "there is no inbox",
    "android_": "FCM's common fields have nothing for it",
    "ios_": "FCM's common fields have nothing for it",
    "chrome_": "browsers show title, content, link and image",
    "firefox_": "browsers show title, content, link and image",
    "safari_": "browsers show title, content, link and image",
    "mac_": "pushes go through FCM",
    "wns_": "pushes go through FCM",
    "wp_": "pushes go through FCM",
    "adm_": "pushes go through FCM",
    "amazon_": "pushes go through FCM",
    "huawei_": "pushes go through FCM",
    "baidu_": "pushes go through FCM",
    "blackberry": "pushes go through FCM",
}
#: Fields without which a message would say or do something else.
_REFUSED = {
    "geozone": "is not supported; tag people by where they are, and give conditions",
    "rich_media": "is not supported; give a link",
    "page_id": "is not supported; give a link",
    "remote_page": "is not supported; give it as link",
    "capping_days": "is not supported; how many SMS a number gets in a day is a setting, KNOCKTWICE_SMS_PER_DAY",
    "capping_count": "is not supported; how many SMS a number gets in a day is a setting, KNOCKTWICE_SMS_PER_DAY",
    "ios_root_params": "is not supported; give data, or the ios_ fields that are",
    "android_root_params": "is not supported; give data, or the android_ fields that are",
    "ios_silent": "is not supported; what is not shown cannot be answered",
    "android_silent": "is not supported; what is not shown cannot be answered",
    "email_template": "is not supported; there is no e-mail",
}
_DATE = "%Y-%m-%d %H:%M"
_BADGE = re.compile(r"[0-9]{1,9}")
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
#: What our requests call a field → what the message calls it.
WORDS = {
    "push.title": "title",
    "push.body": "content",
    "push.subtitle": "subtitle",
    "push.data": "data",
    "push.link": "link",
    "push.image": "android_banner",
    "push.sound": "android_sound",
    "push.badge": "ios_badges",
    "push.icon": "android_icon",
    "push.channel_id": "android_channel",
    "push.apns": "ios_sound",
    "sms.text": "content",
    "template": "preset",
    "send_at": "send_date",
    "segment": "filter",
    "throttle_per_min": "send_rate",
    "ttl_s": "ios_ttl",
    "params": "dynamic_content_placeholders",
}


@dataclass(slots=True)
class Message:
    """The content to be sent.

    Attributes:
        body: the fields that everybody shares, as our own requests have them.
        audience: who gets it.
        params: values of its texts.
        key: its idempotency key.
        throttle_per_min: of a group, most people in a minute.
        ignored: fields whose wish cannot be met, and why.
    """

    body: Json
    audience: Audience
    params: Json
    key: str | None = None
    throttle_per_min: int | None = None
    ignored: dict[str, str] = field(default_factory=dict)


@all_at_once
def read(message: Mapping[str, Any], wanted: Audience, title: str) -> Message:
    """Return what a message says.

    Args:
        wanted: whom it is for.
        title: of a push that has none.

    Raises:
        InvalidMessage: fields are wrong or not supported; all are named.
    """
    own = _own(message)
    texts = Texts(_object(message, "dynamic_content_placeholders"))
    made = Message({name: value for name, value in own.items() if name != "key"}, wanted, texts.params)
    made.ignored |= wanted.ignored | _sorted_out(message)
    if (at := attempt(_send_at, None, message)) is not None:
        made.body["send_at"] = at
    made.key = own.get("key") or _text(message, "transactionId")
    if message.get("campaign"):
        made.body["reference"] = {**(own.get("reference") or {}), "campaign": message["campaign"]}
    _say(message, made, texts, title)
    rate = message.get("send_rate")
    if rate is not None and wanted.recipients is None:
        if type(rate) is not int or rate < 1:
            fail("send_rate", "must be a whole number of pushes in a second", None)
        else:
            made.throttle_per_min = rate * 60
    elif rate is not None:
        made.ignored["send_rate"] = "is ignored beside users and devices"
    return made


def _own(message: Mapping[str, Any]) -> Json:
    own = _object(message, "knocktwice")
    for name in own:
        if name not in _OWN:
            fail(f"knocktwice.{name}", f"is not known; there are {', '.join(sorted(_OWN))}", None)
    return {name: value for name, value in own.items() if value is not None}


def _sorted_out(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that are ignored, and refuse those that cannot be."""
    ignored = {}
    for name, value in message.items():
        if name in _READ or value in (None, "", [], {}):
            continue
        why = next((why for start, why in _IGNORED.items() if name.startswith(start)), None)
        if name in _REFUSED or why is None:
            fail(name, _REFUSED.get(name, "is not supported; leave it out"), None)
        else:
            ignored[name] = f"is ignored; {why}"
    return ignored


def _send_at(message: Mapping[str, Any]) -> object:
    value = message.get("send_date", "now")
    if value in ("now", None, ""):
        return None
    try:
        at = datetime.strptime(str(value), _DATE if len(str(value)) <= 16 else f"{_DATE}:%S")  # noqa: DTZ007 - its zone follows
    except ValueError:
        return fail("send_date", 'cannot be parsed; it must be "now" or YYYY-MM-DD HH:mm', None)
    if message.get("ignore_user_timezone") is False:
        return {"local": at.isoformat()}
    zone = message.get("timezone") or "UTC"
    try:
        known = ZoneInfo(time_zones.canonical(str(zone)))
    except ValueError as error:
        return fail("timezone", str(error), None)
    return at.replace(tzinfo=known).astimezone(UTC).isoformat()


def _say(message: Mapping[str, Any], made: Message, texts: Texts, title: str) -> None:
    """Put what is said into the body: a saved template, an SMS, or a push."""
    content = texts.read(message.get("content"), "content")
    preset = _text(message, "preset")
    if content in (None, ""):
        if preset is None:
            fail("content", "is missing; give a text, texts by language, or a preset", None)
        made.body["template"] = preset
        if made.audience.texted:
            made.body["push"] = False
        for name in ("title", "subtitle", "link", "data"):
            if message.get(name):
                made.ignored[name] = "is ignored; the preset says what is shown"
        return
    if preset is not None:
        made.ignored["preset"] = "is ignored; content says what is shown"
    if made.audience.texted:
        if "sms" in made.body or "steps" in made.body:
            fail("knocktwice", "has sms or steps, but the message is an SMS itself", None)
        made.body["sms"] = {"text": content}
        made.body["default_locale"] = default_locale(content)
        for name in ("title", "subtitle", "link", "data"):
            if message.get(name):
                made.ignored[name] = "is ignored; an SMS is its content alone"
        return
    shown = next((message[name] for name in ("title", "ios_title", "android_header") if message.get(name)), title)
    push: Json = {"title": texts.read(shown, "title"), "body": content}
    subtitle = texts.read(message.get("subtitle") or message.get("ios_subtitle"), "subtitle")
    if subtitle:
        push["subtitle"] = subtitle
    made.body["push"] = push | _looks(message, made)
    made.body["default_locale"] = default_locale(*push.values())
    times = [message[name] for name in ("ios_ttl", "android_gcm_ttl") if message.get(name) is not None]
    if times:
        made.body["ttl_s"] = max(times, key=lambda one: one if type(one) is int else 0)


def _looks(message: Mapping[str, Any], made: Message) -> Json:
    looks: Json = {}
    if message.get("data"):
        looks["data"] = attempt(_data, {}, message["data"])
    image = message.get("android_banner") or message.get("ios_attachment")
    priority = message.get("android_delivery_priority") or message.get("android_priority")
    for name, value in (
        ("link", message.get("link")),
        ("image", image),
        ("sound", message.get("android_sound")),
        ("icon", message.get("android_icon")),
        ("channel_id", message.get("android_channel")),
    ):
        if value:
            looks[name] = value
    if priority in ("high", "normal"):
        looks["priority"] = priority
    elif priority:
        made.ignored["android_priority"] = "is ignored; high and normal are known"
    color = message.get("android_ibc")
    if isinstance(color, str) and _COLOR.fullmatch(color):
        looks["color"] = color
    elif color:
        made.ignored["android_ibc"] = "is ignored; a color is known as #rrggbb"
    badge = message.get("ios_badges")
    if badge not in (None, ""):
        if type(badge) is int or (isinstance(badge, str) and _BADGE.fullmatch(badge)):
            looks["badge"] = int(badge)
        else:
            made.ignored["ios_badges"] = "is ignored; FCM cannot count, so give the number"
    own = {
        "sound": message.get("ios_sound"),
        "category": message.get("ios_category_id"),
        "thread-id": message.get("ios_thread_id"),
        "interruption-level": message.get("ios_interruption_level"),
    }
    if aps := {name: str(value) for name, value in own.items() if value}:
        looks["apns"] = {"payload": {"aps": aps}}
    return looks


def _data(value: object) -> dict[str, str]:
    """Read what the app is handed: JSON as text, or an object. FCM takes texts only, so other values become JSON."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise InvalidMessage("data", "must be a JSON object, as text or as it is")
    return {name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for name, one in decoded.items()}


def _text(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        return fail(name, "must be text", None)
    return value


def _object(holder: Mapping[str, Any], name: str) -> Json:
    value = holder.get(name)
    if value in (None, []):
        # PHP writes an empty object as a list.
        return {}
    if not isinstance(value, dict):
        return fail(name, "must be an object", {})
    return value
