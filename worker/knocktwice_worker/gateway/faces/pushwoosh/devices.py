"""``registerDevice``, ``unregisterDevice`` and ``setTags``: a hwid names a device, and may be a phone number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_worker.audience import hwids
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import here, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import audience_changes
from knocktwice_worker.gateway.faces.pushwoosh import audience
from knocktwice_worker.gateway.faces.pushwoosh.envelope import answer, opened
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.audience.hwids import Named
    from knocktwice_worker.notation.phone_numbers import Rules
    from knocktwice_worker.services import Services

Json = dict[str, Any]

#: The beginning of a number that is reached by WhatsApp.
WHATSAPP = "whatsapp:"
#: Longest hwid, in characters.
HWID_LIMIT = hwids.LIMIT
#: Fields of a device that say nothing here.
_IGNORED = (
    "application",
    "idfa",
    "device_model",
    "device_name",
    "jailbroken",
    "os_version",
    "public_key",
    "auth_token",
)
_IGNORED_TOO = ("fcm_token", "fcm_push_set", "black", "app_build", "v", "gcm_id", "isRegisterable", "pushAlertsEnabled")
_DEVICE = ("hwid", "push_token", "device_type", "userId", "user_id", "language", "timezone", "tags", "app_version")
#: What a change calls a field → what Pushwoosh calls it.
_WORDS = {
    "registration": "push_token",
    "phone": "hwid",
    "user": "userId",
    "locale": "language",
    "time_zone": "timezone",
}
#: Pushwoosh's numbers of devices whose pushes FCM does not carry.
UNREACHED = {8: "Windows", 9: "Amazon", 17: "Huawei", 19: "Xiaomi"}


async def register(request: Request) -> Response:
    """Register a device, or bind a number where the hwid is one; a device without a user is its own person."""
    _, body = await opened(request, Scope.AUDIENCE)
    rules = here(request).settings.phone_rules
    changes, name = _registration(body, rules)
    # Everything is checked before anything is written.
    draft = audience_changes.draft(changes, rules, _WORDS) if changes else None
    if name is not None:
        await run_in_threadpool(_name, here(request), name)
    if draft is not None:
        await outbox(request).send(draft)
    return answer(None)


@all_at_once
def _registration(body: Mapping[str, Any], rules: Rules) -> tuple[list[Json], tuple[str, str, str] | None]:
    """Return what is said about people, and the device's name, its user and its registration."""
    if body.get("email") is not None:
        fail("email", "is not supported; there is no e-mail", None)
    wording.refuse_unknown(body, (*_DEVICE, *_IGNORED, *_IGNORED_TOO, "email"))
    hwid = _hwid(body)
    number = _number(hwid, body.get("device_type"), rules)
    user = _user(body) or alone(number or hwid)
    changes: list[Json] = []
    name = None
    about: Json = {}
    if (locale := body.get("language")) not in (None, ""):
        about["locale"] = locale
    if (zone := attempt(_zone, None, body.get("timezone"))) is not None:
        about["time_zone"] = zone
    token = body.get("push_token")
    if number is not None:
        changes.append({"change": "bind_phone", "user": user, "phone": number})
    elif token not in (None, ""):
        kind = body.get("device_type")
        if type(kind) is int and kind in UNREACHED:
            fail("device_type", f"is {kind} ({UNREACHED[kind]}), which FCM does not reach", None)
        platform = audience.PLATFORMS.get(kind) if type(kind) is int else None
        more = {"platform": platform} if platform else {}
        if body.get("app_version"):
            more["app_version"] = body["app_version"]
        changes.append({"change": "register_device", "user": user, "registration": token, **more, **about})
        name = (hwid, user, str(token))
    tags = _tags(body.get("tags"))[0] if body.get("tags") else {}
    if tags or (number is not None and about):
        changes.append({"change": "set_tags", "user": user, "tags": tags, **(about if number is not None else {})})
    return changes, name


def _name(services: Services, name: tuple[str, str, str]) -> None:
    hwid, user, registration = name
    with writing(services) as conn:
        hwids.name(conn, hwid, user=user, registration=registration)


async def unregister(request: Request) -> Response:
    """Say that a device is nobody's any more; a number is unbound."""
    _, body = await opened(request, Scope.AUDIENCE)
    wording.refuse_unknown(body, ("application", "hwid"))
    rules = here(request).settings.phone_rules
    hwid = _hwid(body)
    number = _number(hwid, None, rules)
    found = await run_in_threadpool(_find, here(request), number or hwid)
    change: Json | None = None
    if number is not None and found is not None:
        change = {"change": "bind_phone", "user": found.user, "phone": None}
    elif found is not None:
        change = {"change": "unregister_device", "user": found.user, "registration": found.registration}
    if change is not None:
        await outbox(request).send(audience_changes.draft([change], rules, _WORDS))
        await run_in_threadpool(_drop, here(request), hwid)
    return answer(None)


async def set_tags(request: Request) -> Response:
    """Say something about the person of a device, or about a user; tags that cannot be set are named as skipped."""
    _, body = await opened(request, Scope.AUDIENCE)
    wording.refuse_unknown(body, ("application", "hwid", "userId", "user_id", "tags"))
    rules = here(request).settings.phone_rules
    user = _user(body)
    if user is None:
        hwid = _hwid(body)
        name = _number(hwid, None, rules) or hwid
        found = await run_in_threadpool(_find, here(request), name)
        user = alone(name) if found is None else found.user
    tags, skipped = _tags(body.get("tags"))
    if tags:
        change = {"change": "set_tags", "user": user, "tags": tags}
        await outbox(request).send(audience_changes.draft([change], rules, _WORDS))
    return answer({"skipped": skipped})


def _find(services: Services, name: str) -> Named | None:
    with reading(services) as conn:
        return hwids.find(conn, [name]).get(name)


def _drop(services: Services, hwid: str) -> None:
    with writing(services) as conn:
        hwids.drop(conn, hwid)


def _hwid(body: Mapping[str, Any]) -> str:
    hwid = body.get("hwid")
    if not isinstance(hwid, str) or not 1 <= len(hwid.strip()) <= hwids.LIMIT or not hwid.isprintable():
        return fail("hwid", f"must be text of 1 to {hwids.LIMIT} printable characters", "?")
    return hwid.strip()


def _user(body: Mapping[str, Any]) -> str | None:
    user = body.get("userId", body.get("user_id"))
    if user in (None, ""):
        return None
    return (
        str(user) if isinstance(user, str | int) and not isinstance(user, bool) else fail("userId", "must be text", "?")
    )


def alone(name: str) -> str:
    """Return the person of a device without a user: its hwid, as in Pushwoosh; no number, because ids may be shown."""
    if not name.startswith("+"):
        return name
    return f"number-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _number(hwid: str, kind: object, rules: Rules) -> str | None:
    """Return the number that a hwid is, in its one spelling; ``None``: it is none."""
    plain = hwid.removeprefix(WHATSAPP)
    if not audience.is_number(plain) and plain == hwid and kind not in (audience.SMS, audience.WHATSAPP):
        return None
    return wording.phone(plain, "hwid", rules)


def _zone(offset: object) -> str | None:
    """Return the time zone of an offset in seconds, as Android writes it."""
    if offset in (None, ""):
        return None
    if type(offset) is not int or abs(offset) > 14 * 3600:
        raise InvalidMessage("timezone", "must be an offset from UTC in seconds")
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"GMT{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"


def _tags(value: object) -> tuple[Json, list[dict[str, str]]]:
    """Return tags, and those that cannot be set, with the reason."""
    if value in (None, []):
        return {}, []
    if not isinstance(value, dict):
        raise InvalidMessage("tags", "must be an object")
    skipped = [
        {"tag": name, "reason": "increments and appends are not supported; give the value"}
        for name, one in value.items()
        if isinstance(one, dict)
    ]
    return {name: one for name, one in value.items() if not isinstance(one, dict)}, skipped
