"""OneSignal's request for a message → what all its recipients share, as our own routes take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_worker.gateway.faces.onesignal import known_fields, languages, push, times
from knocktwice_worker.gateway.intake.idempotency import KEY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.config import Settings

Json = dict[str, Any]

#: Our extra field: what follows the push by SMS.
FALLBACK = "sms_fallback"
_FALLBACK_FIELDS = ("when", "after", "after_s", "text", "media", "sender")
#: OneSignal's fields of an SMS → what our own routes call them.
_OF_SMS = {"sms_from": "sender", "sms_media_urls": "media"}
_FALLBACK_TEXT = f"{FALLBACK}.text"
#: When it follows if nothing else is said.
_WHEN = "not_delivered"
#: Names of a reference in which OneSignal's fields are kept.
NAME, APP = "name", "app_id"
_PLATFORMS = {"isIos": "ios", "isAndroid": "android", "isAnyWeb": "web"}


@dataclass(slots=True)
class Asked:
    """A request, without its recipients.

    Attributes:
        message: as our own routes take it.
        sms: whether it is an SMS, and no push.
        params: what is filled into the texts.
        key: the idempotency key.
        per_minute: most people in a minute.
        platforms: only people with a device of one of these.
        warnings: fields that change nothing, with the reason.
    """

    message: Json
    sms: bool
    params: Json
    key: str | None
    per_minute: int | None
    platforms: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@all_at_once
def read(given: Mapping[str, Any], settings: Settings) -> Asked:
    """Read a request.

    Raises:
        InvalidMessage: fields are wrong, or mean what is not done here; all of them are named.
    """
    body = {name: value for name, value in given.items() if value is not None}
    body = {name: value for name, value in body.items() if value not in known_fields.SAYS_NOTHING.get(name, ())}
    _refuse(body)
    warnings = [f"{name} was ignored: {why}" for name, why in known_fields.COSMETIC.items() if name in body]
    is_sms = attempt(_is_sms, False, body)
    message: Json = {"reference": attempt(_reference, {}, body)}
    if "category" in body:
        message["category"] = body["category"]
    step = None if is_sms else attempt(_fallback, None, body, settings)
    said = attempt(_texts, {}, body, step, settings.onesignal_title, is_sms=is_sms)
    if "template_id" in body:
        message |= attempt(_template, {}, body, is_sms=is_sms)
    elif is_sms:
        message["sms"] = {
            "text": said.get("contents"),
            **{_OF_SMS[name]: body[name] for name in _OF_SMS if name in body},
        }
    else:
        message["push"] = push.read(body, said)
    if not is_sms:
        if step is not None:
            message["sms"] = {**step, "text": said.get(_FALLBACK_TEXT)} if step and "text" in step else step
        if "ttl" in body:
            message["ttl_s"] = body["ttl"]
    send_at = attempt(_send_at, None, body)
    if send_at is not None:
        message["send_at"] = send_at
    return Asked(
        message=message,
        sms=is_sms,
        params=attempt(_params, {}, body),
        key=attempt(_key, None, body),
        per_minute=attempt(_per_minute, None, body),
        platforms=attempt(_platforms, [], body),
        warnings=warnings,
    )


def _refuse(body: Mapping[str, Any]) -> None:
    known = {*known_fields.READ, *known_fields.TARGETS, *known_fields.COSMETIC}
    for name in body:
        if name in known_fields.REFUSED:
            fail(name, known_fields.REFUSED[name], None)
        elif name not in known:
            fail(name, "is not a field that is served here", None)
    if not isinstance(body.get("app_id"), str) or not body["app_id"]:
        fail("app_id", "is missing: the id of the app, any text", None)


def _is_sms(body: Mapping[str, Any]) -> bool:
    channel = body.get("target_channel", body.get("channel_for_external_user_ids"))
    if channel not in (None, "push", "sms"):
        fail("target_channel", 'must be "push" or "sms"; e-mail is not sent here', None)
    is_sms = channel == "sms" or "include_phone_numbers" in body or (channel is None and "sms_from" in body)
    if is_sms and channel == "push":
        name = "include_phone_numbers" if "include_phone_numbers" in body else "sms_from"
        fail(name, f'is about an SMS, and target_channel is "push"; with a push give {FALLBACK}', None)
    for name, ours in _OF_SMS.items():
        if not is_sms and name in body:
            fail(name, f"is about an SMS; with a push give {FALLBACK}.{ours}", None)
    for name in ("headings", "subtitle", FALLBACK) if is_sms else ():
        if name in body:
            fail(name, "is about a push, and this is an SMS", None)
    return is_sms


def _reference(body: Mapping[str, Any]) -> Json:
    name = body.get("name", "")
    if not isinstance(name, str):
        fail("name", "must be text", None)
    return {APP: str(body.get("app_id", "")), **({NAME: name} if name else {})}


def _template(body: Mapping[str, Any], *, is_sms: bool) -> Json:
    for name in ("contents", "headings", "subtitle", "sms_media_urls"):
        if name in body:
            fail(name, "stands beside template_id, which says it; give one or the other", None)
    return {"template": body["template_id"], **({"push": False} if is_sms else {})}


def _texts(body: Mapping[str, Any], step: object, title: str | None, *, is_sms: bool) -> Json:
    """Return the texts of a message, as the contract takes them, by the names that a request has for them."""
    if "template_id" not in body and "contents" not in body:
        fail("contents", "is missing; a message without words is not sent here", None)
    given = {name: body[name] for name in ("headings", "contents", "subtitle") if name in body}
    if not is_sms and "template_id" not in body and "headings" not in body:
        if title is None:
            fail("headings", "is missing; KNOCKTWICE_ONESIGNAL_TITLE can say the app's name for pushes without", None)
        given["headings"] = title or "-"
    if isinstance(step, dict) and "text" in step:
        given[_FALLBACK_TEXT] = step["text"]
    read = {name: attempt(languages.read, None, value, name) for name, value in given.items()}
    return languages.together({name: texts for name, texts in read.items() if texts is not None})


def _fallback(body: Mapping[str, Any], settings: Settings) -> Any:
    """Return the SMS that follows a push, by the request or else by the setting; ``None``: as a template says."""
    given = body.get(FALLBACK, _usual(settings))
    if given is None:
        return None if "template_id" in body else False
    if given is False:
        return False
    if given is True:
        return {"when": _WHEN}
    if not isinstance(given, dict):
        return fail(FALLBACK, "must be an object, true, or false for none", None)
    for name in given:
        if name not in _FALLBACK_FIELDS:
            fail(f"{FALLBACK}.{name}", f"is not a field of this; known here: {', '.join(_FALLBACK_FIELDS)}", None)
    return {"when": _WHEN} | {name: given[name] for name in _FALLBACK_FIELDS if given.get(name) is not None}


def _usual(settings: Settings) -> Json | None:
    """Return the fallback that the setting says, like ``not_clicked after 10m``."""
    if settings.onesignal_sms_fallback is None:
        return None
    when, _, after = settings.onesignal_sms_fallback.partition(" after ")
    return {"when": when, **({"after": after} if after else {})}


def _send_at(body: Mapping[str, Any]) -> Any:
    at = None if "send_after" not in body else times.moment(body["send_after"], "send_after")
    option = body.get("delayed_option")
    if option is None or option == "send_after":
        if "delivery_time_of_day" in body:
            return fail("delivery_time_of_day", 'needs delayed_option "timezone"', None)
        return None if at is None else at.isoformat()
    if option != "timezone":
        return fail("delayed_option", 'must be "timezone"; when somebody last used the app is not looked at here', None)
    if "delivery_time_of_day" not in body:
        return fail("delivery_time_of_day", 'is missing beside delayed_option "timezone"', None)
    clock = times.clock(body["delivery_time_of_day"], "delivery_time_of_day")
    if at is None:
        return {"local": times.next_local(clock, datetime.now(UTC)).isoformat()}
    return {"local": datetime.combine(at.date(), clock).isoformat()}


def _params(body: Mapping[str, Any]) -> Json:
    data = body.get("custom_data")
    if data is None:
        return {}
    if not isinstance(data, dict):
        return fail("custom_data", "must be an object", {})
    return {"message": {"custom_data": data}}


def _key(body: Mapping[str, Any]) -> str | None:
    given = {name: body[name] for name in ("idempotency_key", "external_id") if name in body}
    for name, value in given.items():
        if not isinstance(value, str) or not 1 <= len(value) <= KEY_LIMIT:
            return fail(name, f"must be text of 1 to {KEY_LIMIT} characters", None)
    if len(set(given.values())) > 1:
        raise InvalidMessage("external_id", "differs from idempotency_key; it is an older name of it, leave it out")
    return next(iter(given.values()), None)


def _per_minute(body: Mapping[str, Any]) -> int | None:
    value = body.get("throttle_rate_per_minute")
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if value is not None and (type(value) is not int or value < 0):
        return fail("throttle_rate_per_minute", "must be a whole number of people", None)
    return value or None


def _platforms(body: Mapping[str, Any]) -> list[str]:
    for name in _PLATFORMS:
        if name in body and body[name] is not True:
            fail(name, "must be true or false", None)
    return [ours for theirs, ours in _PLATFORMS.items() if body.get(theirs)]
