"""The recipients of OneSignal's request for a message: people, devices, numbers, or a filter over everybody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.audience import aliases, segment_filter, segments
from knocktwice_worker.gateway.faces.onesignal import filters, known_fields, names
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from knocktwice_worker.gateway.faces.onesignal.message import Asked
    from knocktwice_worker.notation.phone_numbers import Rules

Json = dict[str, Any]

#: Most entries of one request, as at OneSignal.
ENTRIES_LIMIT = 20_000
#: Most characters of a user's id.
_USER_LIMIT = 200
#: Fields whose answer needs the database.
_LOOKED_UP = ("include_aliases", "include_subscription_ids", "include_player_ids", "included_segments")
_PLAYERS = ("include_subscription_ids", "include_player_ids")


@dataclass(slots=True)
class Targets:
    """The recipients of a request.

    Attributes:
        recipients: as our own routes take them, each once.
        invalid: entries that nobody here has, as OneSignal's answer names them.
        filter: everybody who is described by it, instead.
    """

    recipients: list[Json] = field(default_factory=list)
    invalid: Json = field(default_factory=dict)
    filter: Json | None = None


def chosen(body: Mapping[str, Any]) -> str:
    """Return the one field that says whom it is for.

    Raises:
        InvalidMessage: there is none, or several stand beside each other.
    """
    given = [name for name in known_fields.TARGETS if body.get(name) not in (None, [], {})]
    if not given:
        empty = next((name for name in known_fields.TARGETS if body.get(name) is not None), "include_aliases")
        raise InvalidMessage(empty, f"says nobody; give one of {', '.join(known_fields.TARGETS)}")
    if len(given) > 1:
        raise InvalidMessage(given[1], f"stands beside {given[0]}; give one of the two")
    if body.get("excluded_segments") and given[0] != "included_segments":
        raise InvalidMessage("excluded_segments", f"stands beside {given[0]}; it goes with included_segments only")
    return given[0]


def many(name: str, body: Mapping[str, Any]) -> bool:
    """Whether so many entries are given that reading them would hold up other requests."""
    given = body[name]
    lists = given.values() if isinstance(given, dict) else [given]
    return any(isinstance(one, list) and len(one) > BATCH_LIMIT for one in lists)


def needs_database(name: str, body: Mapping[str, Any]) -> bool:
    """Whether the people can only be found in the database; without it a message is taken while that is away."""
    own = isinstance(body.get(name), dict) and set(body[name]) <= {names.EXTERNAL}
    return name in _LOOKED_UP and not own


def find(conn: Connection | None, name: str, body: Mapping[str, Any], asked: Asked, rules: Rules) -> Targets:
    """Return whom a request is for.

    Args:
        conn: a connection, if :func:`needs_database`.
        name: the field that says it.

    Raises:
        InvalidMessage: it is of the wrong form, or names a segment that is not there.
    """
    if name == "filters":
        found = Targets(filter=filters.read(body["filters"]))
    elif name == "included_segments":
        found = Targets(filter=_in_segments(_needed(conn), body, asked))
    elif name == "include_phone_numbers":
        found = _numbers(_texts(body[name], name), rules)
    elif name == "include_aliases":
        found = _aliases(conn, body[name])
    elif name == "include_external_user_ids":
        found = _users(_texts(body[name], name), "invalid_external_user_ids")
    elif name == "include_android_reg_ids":
        found = Targets([{"registrations": [one]} for one in _texts(body[name], name)])
    else:
        found = _subscriptions(_needed(conn), _texts(body[name], name), sms=asked.sms)
    if found.filter is None:
        _refuse_for_all(asked)
    elif asked.platforms:
        found.filter = {"and": [found.filter, {"field": "platform", "op": "in", "value": asked.platforms}]}
    if found.filter is not None:
        segment_filter.parse(found.filter, name)
    return found


def _refuse_for_all(asked: Asked) -> None:
    if asked.platforms:
        raise InvalidMessage("isIos", "isAndroid and isAnyWeb go with segments and filters only")
    if asked.per_minute is not None:
        raise InvalidMessage("throttle_rate_per_minute", "goes with segments and filters only")


def _needed(conn: Connection | None) -> Connection:
    if conn is None:
        raise RuntimeError("the people are in the database")
    return conn


def _texts(given: object, field_: str) -> list[str]:
    """Return a list of texts, each once."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(one, str | int) for one in given):
        raise InvalidMessage(field_, "must be a list of texts")
    if len(given) > ENTRIES_LIMIT:
        raise InvalidMessage(field_, f"has {len(given)} entries; at most {ENTRIES_LIMIT} are taken at once")
    return list(dict.fromkeys(str(one) for one in given))


def _in_segments(conn: Connection, body: Mapping[str, Any], asked: Asked) -> Json:
    fallback = bool(asked.message.get("sms"))

    def of(name: str, field_: str) -> Json:
        try:
            return segment_filter.dump(segments.get(conn, name).filter)
        except segments.UnknownSegment:
            known = filters.usual(name, sms=asked.sms, fallback=fallback)
            if known is None:
                raise InvalidMessage(field_, f"there is no segment {name!r}") from None
            return known

    def any_of(field_: str) -> Json:
        found = [of(name, field_) for name in _texts(body[field_], field_)]
        return found[0] if len(found) == 1 else {"or": found}

    included = any_of("included_segments")
    if not body.get("excluded_segments"):
        return included
    return {"and": [included, {"not": any_of("excluded_segments")}]}


def _numbers(given: Sequence[str], rules: Rules) -> Targets:
    found, numbers = Targets(), dict[str, None]()
    for one in given:
        try:
            numbers[canonical(one, rules)] = None
        except UnusableNumber:
            found.invalid.setdefault("invalid_phone_numbers", []).append(one)
    found.recipients = [{"phone": number} for number in numbers]
    return found


def _users(given: Sequence[str], invalid: str) -> Targets:
    found = Targets()
    for one in given:
        if not one.strip() or len(one) > _USER_LIMIT or "\0" in one:
            found.invalid.setdefault(invalid, []).append(one)
        else:
            found.recipients.append({"user": one})
    return found


def _aliases(conn: Connection | None, given: object) -> Targets:
    if not isinstance(given, dict):
        raise InvalidMessage("include_aliases", 'must be an object, like {"external_id": ["u-17"]}')
    found, users = Targets(), dict[str, None]()
    for label, values in given.items():
        asked = _texts(values, f"include_aliases.{label}")
        if label == names.EXTERNAL:
            known = {one: one for one in asked if one.strip() and len(one) <= _USER_LIMIT and "\0" not in one}
        else:
            known = {value: one.user for value, one in aliases.find(_needed(conn), names.label(label), asked).items()}
        users |= dict.fromkeys(known.values())
        unknown = [one for one in asked if one not in known]
        if unknown:
            found.invalid.setdefault("invalid_aliases", {})[label] = unknown
    found.recipients = [{"user": user} for user in users]
    return found


def _subscriptions(conn: Connection, given: Sequence[str], *, sms: bool) -> Targets:
    found, known = Targets(), aliases.find(conn, names.SUBSCRIPTION, given)
    reached = dict[str, None]()
    for one in given:
        alias = known.get(one)
        if alias is None or (alias.registration is None) != sms:
            found.invalid.setdefault("invalid_player_ids", []).append(one)
        else:
            reached[alias.registration or alias.user] = None
    found.recipients = [{"user": one} if sms else {"registrations": [one]} for one in reached]
    return found
