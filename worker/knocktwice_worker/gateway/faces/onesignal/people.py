"""``/apps/{app_id}/users`` and ``/subscriptions``: OneSignal's people, with their names, tags, devices and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import aliases, profile
from knocktwice_worker.gateway.auth.access import here, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import audience_changes
from knocktwice_worker.gateway.faces.onesignal import languages, names, subscriptions, tags
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, missing, query, said, with_warnings
from knocktwice_worker.gateway.faces.onesignal.subscriptions import Changes
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.audience.aliases import Alias
    from knocktwice_worker.audience.profile import Profile
    from knocktwice_worker.services import Services

Json = dict[str, Any]

#: Properties that nobody needs here.
_COSMETIC = frozenset({"country", "first_active", "last_active", "ip"})
#: Properties that are read.
_PROPERTIES = frozenset({"tags", "language", "timezone_id"})
#: Counts of sessions, which nobody needs here.
_SESSIONS = frozenset({"session_time", "session_count"})


@dataclass(frozen=True, slots=True)
class Known:
    """The facts about a person.

    Attributes:
        user: the application's own id, or one made here.
        found: the person; ``None``: what was accepted of the person is not written yet.
        aliases: names that OneSignal's client gave.
    """

    user: str
    found: Profile | None
    aliases: dict[str, str]

    @property
    def identity(self) -> Json:
        """All names of the person."""
        own = {} if self.user.startswith(names.ANONYMOUS) else {names.EXTERNAL: self.user}
        return {names.ONESIGNAL: names.person(self.user), **own, **self.aliases}


def known(services: Services, user: str) -> Known:
    """Return what is known of a person, and make sure that the ids which are shown lead to the person."""
    with reading(services) as conn:
        found, kept = profile.find(conn, user), aliases.of_user(conn, user)
    own = {theirs: one.value for one in kept if (theirs := names.alias_label(one.label)) not in (None, names.ONESIGNAL)}
    if found is not None:
        there = {(one.label, one.value) for one in kept}
        lacking = [one for one in names.of_profile(found) if (one.label, one.value) not in there]
        if lacking:
            with writing(services) as conn:
                aliases.put(conn, lacking)
    return Known(user, found, {label: value for label, value in own.items() if label is not None})


def resolve(services: Services, label: str, value: str) -> str:
    """Return the user that an alias leads to.

    Raises:
        Problem: it leads nowhere.
    """
    if label == names.EXTERNAL:
        return value
    with reading(services) as conn:
        found = aliases.find(conn, names.label(label), [value]).get(value)
    if found is None:
        raise missing("user")
    return found.user


def subscription(services: Services, id_: str) -> Alias:
    """Return what a subscription's id leads to.

    Raises:
        Problem: it leads nowhere.
    """
    with reading(services) as conn:
        found = aliases.find(conn, names.SUBSCRIPTION, [id_]).get(id_)
    if found is None:
        raise missing("subscription")
    return found


#: What a change calls a field → what OneSignal calls it.
_WORDS = {
    "registration": "token",
    "phone": "token",
    "user": "external_id",
    "locale": "language",
    "time_zone": "timezone_id",
}


async def write(request: Request, changes: Changes) -> None:
    """Write the aliases, and hand the changes to the workers: in one message, so all of them are made or none.

    Raises:
        InvalidMessage: a change is wrong; nothing was written.
    """
    services = here(request)
    draft = None
    if changes.listed:
        draft = audience_changes.draft(changes.listed, services.settings.phone_rules, _WORDS)

    def put() -> None:
        with writing(services) as conn:
            aliases.put(conn, changes.aliases)

    if changes.aliases:
        await run_in_threadpool(put)
    if draft is not None:
        await outbox(request).send(draft)


def properties(into: Changes, user: str, given: object) -> Json:
    """Add the changes that describe a person, and return the properties as they are answered.

    Raises:
        InvalidMessage: a property is wrong, or cannot be kept here.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidMessage("properties", "must be an object")
    asked = {name: value for name, value in given.items() if value is not None}
    for name in asked:
        if name not in _PROPERTIES | _COSMETIC:
            raise InvalidMessage(f"properties.{name}", "is not kept here; put what segments need into tags")
    into.warn(asked, _COSMETIC, "properties.")
    change: Json = {}
    if "tags" in asked:
        change["tags"] = tags.read(asked["tags"], "properties.tags")
    if "language" in asked:
        change["locale"] = languages.ours(_text(asked["language"], "properties.language"))
    if "timezone_id" in asked:
        change["time_zone"] = _text(asked["timezone_id"], "properties.timezone_id")
    if change:
        into.listed.append({"change": "set_tags", "user": user, "tags": {}, **change})
    return {name: value for name, value in asked.items() if name in _PROPERTIES}


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidMessage(field, "must be text")
    return value


def shown(one: Known) -> Json:
    """Return a person as OneSignal shows one."""
    found = one.found
    told: Json = {} if found is None else {"tags": tags.told(found.tags)}
    if found is not None:
        zone = found.time_zone or next((device.time_zone for device in found.devices if device.time_zone), None)
        locale = found.locale or next((device.locale for device in found.devices if device.locale), None)
        own = {"language": languages.theirs(locale), "timezone_id": zone, "country": found.country}
        told |= {name: value for name, value in own.items() if value is not None}
    listed = [] if found is None else subscriptions.shown(found)
    return {"identity": one.identity, "properties": told, "subscriptions": listed}


async def create(request: Request) -> Response:
    """Make a person with names, properties and subscriptions; one who is there is changed."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = await read_json(request), here(request)
    for name in body:
        if name not in ("identity", "properties", "subscriptions"):
            raise InvalidMessage(name, "is not a field that is served here")
    identity = identity_of(body.get("identity"))
    given = body.get("subscriptions") or []
    if not isinstance(given, list):
        raise InvalidMessage("subscriptions", "must be a list")
    checked = [subscriptions.checked(one, f"subscriptions[{place}].") for place, one in enumerate(given)]
    user = await run_in_threadpool(_owner, services, identity, checked)
    changes = Changes(aliases=[names.of_person(user)])
    claim(changes, user, identity)
    told = properties(changes, user, body.get("properties"))
    numbers = [one for one in checked if one.get("type") == subscriptions.SMS]
    if len({one.get("token") for one in numbers}) > 1:
        raise InvalidMessage("subscriptions", "has several numbers; a person has one here")
    made = [
        {**one, "id": subscriptions.add(changes, user, one, f"subscriptions[{place}].").value}
        for place, one in enumerate(checked)
    ]
    if not changes.listed:
        # Nothing is said but a name; the person is known by it from now on.
        changes.listed.append({"change": "set_tags", "user": user, "tags": {}})
    before = await run_in_threadpool(known, services, user)
    await run_in_threadpool(refuse_taken, services, user, identity)
    await write(request, changes)
    own = {label: value for label, value in identity.items() if label != names.EXTERNAL}
    body = {"identity": {**before.identity, **own}, "properties": told, "subscriptions": made}
    return said(with_warnings(body, changes.warnings), 201 if before.found is None else 202)


def identity_of(given: object) -> dict[str, str]:
    """Return label → alias of a request.

    Raises:
        InvalidMessage: an alias is none, or is made here.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidMessage("identity", "must be an object")
    found = {}
    for label, value in given.items():
        if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.strip():
            raise InvalidMessage(f"identity.{label}", "must be text of 1 to 200 characters")
        if label == names.ONESIGNAL:
            raise InvalidMessage("identity.onesignal_id", "is made here; leave it out")
        if len(label) > 128 or not label.isprintable() or "\0" in value:
            raise InvalidMessage("identity", "has an alias whose label is too long, or that cannot be written")
        found[label] = value
    return found


def _owner(services: Services, identity: Mapping[str, str], given: list[Json]) -> str:
    """Return the user whom a request is about: by the external id, an alias that is known, or what it brings."""
    if names.EXTERNAL in identity:
        return identity[names.EXTERNAL]
    with reading(services) as conn:
        for label, value in identity.items():
            found = aliases.find(conn, names.label(label), [value]).get(value)
            if found is not None:
                return found.user
    for one in given:
        if isinstance(one.get("token"), str):
            return names.stranger_with(one["token"], sms=one.get("type") == subscriptions.SMS)
    if not identity:
        raise InvalidMessage("identity", "or subscriptions must say who it is")
    return names.stranger(" ".join(min(identity.items())))


def claim(changes: Changes, user: str, identity: Mapping[str, str]) -> None:
    """Add the aliases of a person."""
    changes.aliases += [
        aliases.Alias(names.label(label), value, user) for label, value in identity.items() if label != names.EXTERNAL
    ]


def refuse_taken(services: Services, user: str, identity: Mapping[str, str]) -> None:
    """Refuse aliases that lead to somebody else.

    Raises:
        Problem: one does.
    """
    with reading(services) as conn:
        for label, value in identity.items():
            if label == names.EXTERNAL:
                continue
            found = aliases.find(conn, names.label(label), [value]).get(value)
            if found is not None and found.user != user:
                raise Problem(
                    "wrong-state", f"the alias {label} is somebody else's; delete it there first", field=label
                )


async def view(request: Request) -> Response:
    """Tell who a person is."""
    key = await admitted(request, Scope.READ)
    query(request)

    def look() -> Json:
        services = here(request)
        one = known(services, resolve(services, request.path_params["label"], request.path_params["id"]))
        if one.found is None and not one.aliases and not _expected(services, one.user):
            raise missing("user")
        told = shown(one)
        if one.found is not None and not key.allows(Scope.AUDIENCE):
            for own in told["subscriptions"]:
                number = own["type"] == subscriptions.SMS
                own["token"] = one.found.masked.phone if number else profile.ending(own["token"])
        return told

    return said(await run_in_threadpool(look))


def _expected(services: Services, user: str) -> bool:
    """Whether a person was made by this face, though the workers have not written the person yet."""
    with reading(services) as conn:
        return bool(aliases.find(conn, names.ONESIGNAL, [names.person(user)]))


async def update(request: Request) -> Response:
    """Change a person's tags, language and zone."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = await read_json(request), here(request)
    deltas = body.get("deltas") or {}
    if not isinstance(deltas, dict) or set(deltas) - _SESSIONS:
        raise InvalidMessage("deltas", "may have session_time and session_count; purchases are not kept here")
    for name in body:
        if name not in ("properties", "deltas", "refresh_device_metadata"):
            raise InvalidMessage(name, "is not a field that is served here")
    user = await run_in_threadpool(resolve, services, request.path_params["label"], request.path_params["id"])
    changes = Changes()
    changes.warn(deltas, _SESSIONS, "deltas.")
    told = properties(changes, user, body.get("properties"))
    await write(request, changes)
    return said(with_warnings({"properties": told}, changes.warnings), 202)


async def delete(request: Request) -> Response:
    """Erase a person everywhere; what was counted stays."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    services = here(request)
    user = await run_in_threadpool(resolve, services, request.path_params["label"], request.path_params["id"])
    await write(request, Changes([{"change": "erase_user", "user": user}]))
    return said({"identity": {names.ONESIGNAL: names.person(user)}}, 202)


async def edit_tags(request: Request) -> Response:
    """Change the tags of a person by the external id, as the older API does."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body = await read_json(request)
    for name in body:
        if name not in ("tags", "app_id"):
            raise InvalidMessage(name, "is not a field that is served here")
    changes = Changes()
    properties(changes, request.path_params["user"], {"tags": body.get("tags")})
    if not changes.listed:
        raise InvalidMessage("tags", "is missing")
    await write(request, changes)
    return said({"success": True})
