"""The recipients of a message: users, devices, or everybody whom a filter or conditions describe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages.problems import all_at_once, fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.audience.hwids import Named

#: Most users or devices of a message.
LIST_LIMIT = 1_000
#: Pushwoosh's numbers of platforms → ours; those that FCM does not reach are missing.
PLATFORMS = {1: "ios", 3: "android", 7: "web", 10: "web", 11: "web", 12: "web"}
SMS, WHATSAPP = 18, 21
_NUMBER = re.compile(r"\+[0-9][0-9 ()./-]{5,24}")
#: Tags that are not tags here.
_FIELDS = {"language": "language", "country": "country"}

Json = dict[str, Any]


@dataclass(slots=True)
class Audience:
    """The recipients of a message.

    Attributes:
        recipients: people, as our own requests name them; ``None``: a group.
        group: the group's segment or filter.
        texted: nothing is pushed; the content is an SMS.
        ignored: fields without an effect, and why.
    """

    recipients: list[Json] | None
    group: Json
    texted: bool
    ignored: dict[str, str]


def is_number(hwid: str) -> bool:
    """Whether a hwid is a phone number."""
    return _NUMBER.fullmatch(hwid.strip()) is not None


def names(message: Mapping[str, Any]) -> list[str]:
    """Return the devices that a message names."""
    found = message.get("devices")
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


@all_at_once
def read(message: Mapping[str, Any], known: Mapping[str, Named], numbers: Mapping[str, str]) -> Audience:
    """Return whom a message is for.

    Args:
        known: devices by their names, and who alone has a number.
        numbers: the one spelling of each number among the devices.

    Raises:
        InvalidMessage: a field is wrong, or cannot be met.
    """
    platforms = _platforms(message)
    texted = platforms == {SMS}
    if platforms is not None and SMS in platforms and not texted:
        fail(
            "platforms",
            'has SMS (18) beside others; give "knocktwice": {"sms": …} for an SMS that follows the push',
            None,
        )
    given = [name for name in ("devices", "users") if message.get(name)]
    if len(given) == 2:
        fail("users", "stands beside devices; give one or the other", None)
    ignored = {}
    if given:
        for name in ("filter", "conditions", "conditions_operator"):
            if message.get(name):
                ignored[name] = f"is ignored beside {given[0]}, as in Pushwoosh"
        listed = _listed(message[given[0]], given[0])
        if platforms is not None and not texted:
            ignored["platforms"] = f"is ignored beside {given[0]}; a push goes to all devices of a person"
        if given[0] == "users":
            return Audience([{"user": one} for one in listed], {}, texted, ignored)
        texts = [one for one in listed if is_number(one)]
        if texts and len(texts) < len(listed):
            fail("devices", "mixes phone numbers with other devices; send two messages", None)
        if texts or texted:
            return Audience([_phone(one, known, numbers) for one in listed], {}, True, ignored)
        return Audience([_device(one, known) for one in listed], {}, False, ignored)
    return Audience(None, _group(message, platforms, texted=texted), texted, ignored)


def _listed(value: object, path: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        fail(path, "must be a list of texts that are not empty", None)
        return []
    if len(value) > LIST_LIMIT:
        fail(path, f"has {len(value)} items; {LIST_LIMIT} at most", None)
    return list(dict.fromkeys(value))


def _phone(hwid: str, known: Mapping[str, Named], numbers: Mapping[str, str]) -> Json:
    number = numbers.get(hwid)
    if number is None:
        return fail("devices", "must be phone numbers in E.164, like +16505550100, for an SMS", {})
    owner = known.get(number)
    return {"phone": number} if owner is None else {"user": owner.user}


def _device(hwid: str, known: Mapping[str, Named]) -> Json:
    found = known.get(hwid)
    return {"registrations": [hwid if found is None or found.registration is None else found.registration]}


def _platforms(message: Mapping[str, Any]) -> set[int] | None:
    value = message.get("platforms")
    if value in (None, []):
        return None
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        return fail("platforms", "must be a list of numbers", None)
    if WHATSAPP in value:
        fail(
            "platforms",
            "has WhatsApp (21), which needs a template that WhatsApp has approved; use /v1/notifications",
            None,
        )
    return set(value)


def _group(message: Mapping[str, Any], platforms: set[int] | None, *, texted: bool) -> Json:
    parts: list[Json] = []
    if message.get("conditions"):
        if message.get("filter"):
            fail("filter", "stands beside conditions; give one or the other", None)
        parts.append(_conditions(message))
    if texted:
        parts.append({"field": "can_receive_sms", "op": "=", "value": True})
    elif platforms is not None:
        ours = sorted({PLATFORMS[one] for one in platforms if one in PLATFORMS})
        if not ours:
            fail("platforms", f"has none that FCM reaches; known are {', '.join(map(str, PLATFORMS))} and {SMS}", None)
        if set(ours) != set(PLATFORMS.values()):
            parts.append({"field": "platform", "op": "in", "value": ours})
    name = message.get("filter")
    if name:
        if not isinstance(name, str):
            fail("filter", "must be the name of a saved segment", None)
        if parts:
            fail("filter", "stands beside platforms; put the platform into the saved segment", None)
        return {"segment": name}
    if not parts:
        return {"segment": {"everyone": True}}
    return {"segment": parts[0] if len(parts) == 1 else {"and": parts}}


def _conditions(message: Mapping[str, Any]) -> Json:
    operator = message.get("conditions_operator", "AND")
    if operator not in ("AND", "OR"):
        fail("conditions_operator", "must be AND or OR", None)
        operator = "AND"
    listed = message["conditions"]
    if not isinstance(listed, list):
        return fail("conditions", "must be a list of conditions like [tag, operator, operand]", {})
    made = [_condition(one, f"conditions[{place}]") for place, one in enumerate(listed)]
    return made[0] if len(made) == 1 else {operator.lower(): made}


def _condition(value: object, path: str) -> Json:
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[0], str) or not isinstance(value[1], str):
        return fail(path, "must be a list of three: the tag, the operator and the operand", {})
    tag, operator, operand = value
    field = _FIELDS.get(tag.lower(), f"tags.{tag}")

    def one(op: str, against: object) -> Json:
        return {"field": field, "op": op, "value": against}

    def at_least(least: object) -> list[Json]:
        # Who has no such tag is in neither "less" nor "not less".
        return [one("exists", True), {"not": one("<", least)}]

    def at_most(most: object) -> list[Json]:
        return [one("exists", True), {"not": one(">", most)}]

    match operator.upper():
        case "EQ":
            return one("=", operand)
        case "NOTEQ":
            return one("!=", operand)
        case "IN" | "NOTIN":
            made = _any_of(one, operand, f"{path}[2]", tag=field.startswith("tags."))
            return made if operator.upper() == "IN" else {"not": made}
        case "GTE":
            return {"and": at_least(operand)}
        case "LTE":
            return {"and": at_most(operand)}
        case "BETWEEN":
            if not isinstance(operand, list) or len(operand) != 2:
                return fail(f"{path}[2]", "must be a list of the least and the largest value", {})
            return {"and": [*at_least(operand[0]), *at_most(operand[1])[1:]]}
    return fail(f"{path}[1]", "must be EQ, NOTEQ, IN, NOTIN, GTE, LTE or BETWEEN", {})


def _any_of(one: Any, operand: object, path: str, *, tag: bool) -> Json:
    """Return the condition that a tag is one of these, or, where it is a list, has one of them."""
    if not isinstance(operand, list) or not operand:
        return fail(path, "must be a list that is not empty", {})
    if not tag:
        made: Json = one("in", operand)
        return made
    return {"or": [one("in", operand), *(one("contains", item) for item in operand)]}


def wanted(message: Mapping[str, Any], numbers: Mapping[str, str]) -> Sequence[str]:
    """Return the names to look up, numbers in their one spelling."""
    # No device has a name that PostgreSQL cannot hold, such as a NUL.
    return [numbers.get(one, one) for one in names(message) if one.isprintable()]
