"""OneSignal's filters → ours, and the segments that every OneSignal app has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_worker.gateway.faces.onesignal import tags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Json = dict[str, Any]

#: Kinds of subscriptions in a filter by device type, in lower case → the people who have one.
_DEVICES: dict[str, Json] = {
    "sms": {"field": "has_phone", "op": "=", "value": True},
    "push": {"field": "has_device", "op": "=", "value": True},
    **{
        name: {"field": "platform", "op": "=", "value": ours}
        for ours, names in {
            "ios": ("ios", "iospush", "0"),
            "android": ("android", "androidpush", "1"),
            "web": ("web", "chromepush", "chromeweb", "safaripush", "firefoxpush", "5", "8", "17"),
        }.items()
        for name in names
    },
    "14": {"field": "has_phone", "op": "=", "value": True},
}
_SEEN_LATELY: Json = {"field": "last_seen", "op": ">", "value": "7 days ago"}
#: Minutes that a moment like "90 minutes ago" can name.
_MOST_MINUTES = 99_999


def reachable(*, sms: bool, fallback: bool) -> Json:
    """Return the people whom OneSignal calls subscribed: to texts, to pushes, or to either."""
    texts = {"field": "can_receive_sms", "op": "=", "value": True}
    pushes = {"field": "notifications_enabled", "op": "=", "value": True}
    return texts if sms else {"or": [pushes, texts]} if fallback else pushes


def usual(name: str, *, sms: bool, fallback: bool) -> Json | None:
    """Return the filter of a segment that every OneSignal app has; ``None``: it has no such one."""
    subscribed = reachable(sms=sms, fallback=fallback)
    match name:
        case "All" | "Subscribed Users" | "Total Subscriptions":
            return subscribed
        case "Active Users" | "Active Subscriptions":
            return {"and": [subscribed, _SEEN_LATELY]}
        case "Inactive Users" | "Inactive Subscriptions":
            return {"and": [subscribed, {"not": _SEEN_LATELY}]}
    return None


@all_at_once
def read(given: object, field: str = "filters") -> Json:
    """Return a filter in our language. Entries are joined by "and", which binds closer than "or".

    Raises:
        InvalidMessage: entries are wrong, or about something that nobody knows here.
    """
    if not isinstance(given, list) or not given:
        return fail(field, "must be a list of filters", {})
    groups: list[list[Json]] = [[]]
    for place, one in enumerate(given):
        path = f"{field}[{place}]"
        if not isinstance(one, dict):
            fail(path, "must be an object", None)
            continue
        said = {name: value for name, value in one.items() if value is not None}
        if "operator" in said and "field" not in said:
            if said["operator"] not in ("AND", "OR"):
                fail(f"{path}.operator", 'must be "AND" or "OR"', None)
            if not groups[-1]:
                fail(path, "joins nothing: no filter stands before it", None)
            elif said["operator"] == "OR":
                groups.append([])
            continue
        if said.get("operator", "AND") != "AND":
            fail(f"{path}.operator", "stands beside field; give it as an entry of its own, between two filters", None)
        groups[-1].append(attempt(_condition, {}, said, path))
    if not groups[-1]:
        fail(field, "ends with an operator that joins nothing", None)
    joined = [group[0] if len(group) == 1 else {"and": group} for group in groups if group]
    return joined[0] if len(joined) == 1 else {"or": joined}


def _condition(one: Mapping[str, Any], path: str) -> Json:
    name = one.get("field")
    read_one = _FIELDS.get(name) if isinstance(name, str) else None
    if read_one is None:
        raise InvalidMessage(f"{path}.field", f"must be one of {', '.join(_FIELDS)}; nothing else is known here")
    unknown = [other for other in one if other not in ("field", "key", "value", "relation", "hours_ago", "operator")]
    if unknown:
        raise InvalidMessage(f"{path}.{unknown[0]}", "is not a field that is served here")
    return read_one(one, path)


def _tag(one: Mapping[str, Any], path: str) -> Json:
    if not isinstance(one.get("key"), str):
        raise InvalidMessage(f"{path}.key", "must be the name of a tag")
    field, relation = f"tags.{one['key']}", _relation(one, path, _TAG_RELATIONS)
    if relation in ("exists", "not_exists"):
        return {"field": field, "op": "exists", "value": relation == "exists"}
    value = one.get("value")
    if not isinstance(value, str | int | float):
        raise InvalidMessage(f"{path}.value", "must be text")
    if relation in (">", "<"):
        return {"field": field, "op": relation, "value": tags.stored(value)}
    values = [part.strip() for part in str(value).split(",")] if "array" in relation else [value]
    among = {"field": field, "op": "in", "value": [form for each in values for form in tags.forms(each)]}
    return among if relation in ("=", "in_array") else {"not": among}


def _word(field: str, respell: Callable[[str], str]) -> Callable[[Mapping[str, Any], str], Json]:
    def read_one(one: Mapping[str, Any], path: str) -> Json:
        relation, value = _relation(one, path, ("=", "!=", "in_array", "not_in_array")), one.get("value")
        if not isinstance(value, str) or not value.strip():
            raise InvalidMessage(f"{path}.value", "must be text")
        values = [respell(part.strip()) for part in value.split(",")] if "array" in relation else [respell(value)]
        among = {"field": field, "op": "in", "value": values}
        return among if relation in ("=", "in_array") else {"not": among}

    return read_one


def _last_session(one: Mapping[str, Any], path: str) -> Json:
    relation = _relation(one, path, (">", "<"))
    try:
        minutes = round(float(str(one.get("hours_ago", one.get("value")))) * 60)
    except (ValueError, OverflowError):
        raise InvalidMessage(f"{path}.hours_ago", "must be a number of hours") from None
    if not 0 <= minutes <= _MOST_MINUTES * 60:
        raise InvalidMessage(f"{path}.hours_ago", "must be a number of hours, 0 or more, and not beyond memory")
    ago = f"{minutes} minutes ago" if minutes <= _MOST_MINUTES else f"{minutes // 60} hours ago"
    # "More than so many hours ago" is earlier than that moment.
    return {"field": "last_seen", "op": "<" if relation == ">" else ">", "value": ago}


def _device_type(one: Mapping[str, Any], path: str) -> Json:
    relation, value = _relation(one, path, ("=", "!=")), str(one.get("value", "")).strip().lower()
    if value not in _DEVICES:
        raise InvalidMessage(f"{path}.value", f"must be one of {', '.join(n for n in _DEVICES if not n.isdigit())}")
    return _DEVICES[value] if relation == "=" else {"not": _DEVICES[value]}


def _relation(one: Mapping[str, Any], path: str, allowed: Sequence[str]) -> str:
    relation = one.get("relation")
    if not isinstance(relation, str) or relation not in allowed:
        raise InvalidMessage(f"{path}.relation", f"must be one of {' '.join(allowed)} here")
    return relation


def _language(code: str) -> str:
    return code.partition("-")[0].lower().replace("cn", "zh")


_TAG_RELATIONS = ("=", "!=", ">", "<", "exists", "not_exists", "in_array", "not_in_array")
_FIELDS: dict[str, Callable[[Mapping[str, Any], str], Json]] = {
    "tag": _tag,
    "language": _word("language", _language),
    "country": _word("country", str.upper),
    "last_session": _last_session,
    "device_type": _device_type,
}
