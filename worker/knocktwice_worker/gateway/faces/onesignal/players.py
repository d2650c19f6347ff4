"""``/players``: the API before subscriptions, which older clients still use. A player is a device, or a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import aliases, profile
from knocktwice_worker.gateway.auth.access import here
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import languages, names, people, subscriptions, tags
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, missing, query, said, whole, with_warnings
from knocktwice_worker.gateway.faces.onesignal.ownership import removal
from knocktwice_worker.gateway.faces.onesignal.subscriptions import Changes
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.transactions import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.audience.aliases import Alias
    from knocktwice_worker.services import Services

Json = dict[str, Any]

#: Fields that nobody needs here.
_COSMETIC = frozenset(
    {
        *("device_model", "device_os", "ad_id", "sdk", "session_count", "created_at", "playtime", "badge_count"),
        *("last_active", "test_type", "long", "lat", "country", "rooted", "web_auth", "web_p256", "ip"),
        *("email_auth_hash", "external_user_id_auth_hash", "identifier_auth_hash", "delay", "parent_player_id"),
    }
)
_KNOWN = frozenset(
    {
        *("app_id", "device_type", "identifier", "language", "timezone", "timezone_id", "game_version", "tags"),
        *("notification_types", "external_user_id"),
    }
)
#: Most players of a page, and the farthest that a page may begin.
PAGE_LIMIT, OFFSET_LIMIT = 300, 10_000


async def create(request: Request) -> Response:
    """Make a device or a number known."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body = _checked(await read_json(request))
    kind = body.get("device_type")
    if not isinstance(kind, int) or isinstance(kind, bool) or kind not in subscriptions.DEVICE_TYPES:
        served = ", ".join(map(str, subscriptions.DEVICE_TYPES))
        raise InvalidMessage("device_type", f"must be one of {served}; nothing else is served here")
    token, type_ = body.get("identifier"), subscriptions.DEVICE_TYPES[kind]
    if not isinstance(token, str) or not token.strip():
        raise InvalidMessage("identifier", "must be the token of a device, or a phone number")
    user = _external(body) or names.stranger_with(token, sms=type_ == subscriptions.SMS)
    changes = Changes(aliases=[names.of_person(user)])
    changes.warn(body, _COSMETIC, "")
    given = {
        "type": type_,
        "token": token,
        "notification_types": body.get("notification_types"),
        "app_version": body.get("game_version"),
        **_place(body),
    }
    alias = subscriptions.add(changes, user, {name: v for name, v in given.items() if v is not None}, "")
    _describe(changes, user, body)
    await people.write(request, changes)
    return said(with_warnings({"success": True, "id": alias.value}, changes.warnings))


def _checked(body: Mapping[str, Any]) -> Json:
    for name in body:
        if name not in _KNOWN | _COSMETIC:
            raise InvalidMessage(name, "is not a field that is served here")
    return {name: value for name, value in body.items() if value is not None}


def _external(body: Mapping[str, Any]) -> str | None:
    given = body.get("external_user_id")
    if given in (None, ""):
        return None
    if not isinstance(given, str | int) or not 1 <= len(str(given)) <= 200:
        raise InvalidMessage("external_user_id", "must be text of 1 to 200 characters")
    return str(given)


def _place(body: Mapping[str, Any]) -> Json:
    """Return language and zone of a device."""
    told: Json = {}
    if isinstance(body.get("language"), str) and body["language"].strip():
        told["locale"] = languages.ours(body["language"])
    seconds = body.get("timezone")
    if isinstance(body.get("timezone_id"), str):
        told["time_zone"] = body["timezone_id"]
    elif seconds is not None:
        if not isinstance(seconds, int) or isinstance(seconds, bool) or abs(seconds) > 14 * 3600:
            raise InvalidMessage("timezone", "must be seconds from UTC; better give timezone_id")
        hours, minutes = divmod(abs(seconds) // 60, 60)
        told["time_zone"] = f"GMT{'-' if seconds < 0 else '+'}{hours:02}:{minutes:02}"
    return told


def _describe(changes: Changes, user: str, body: Mapping[str, Any]) -> None:
    """Add the tags of a player, which are the person's."""
    if "tags" in body:
        found = tags.read(body["tags"], "tags")
        changes.listed.append({"change": "set_tags", "user": user, "tags": found})


async def update(request: Request) -> Response:
    """Change a device or a number, the tags of its person, or whose it is."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = _checked(await read_json(request)), here(request)
    alias = await run_in_threadpool(people.subscription, services, request.path_params["id"])
    user = _external(body) or alias.user
    changes = Changes()
    changes.warn(body, _COSMETIC, "")
    await run_in_threadpool(_update, services, changes, alias, user, body)
    _describe(changes, user, body)
    await people.write(request, changes)
    return said(with_warnings({"success": True}, changes.warnings))


def _update(services: Services, changes: Changes, alias: Alias, user: str, body: Mapping[str, Any]) -> None:
    on, token = subscriptions.enabled(body, ""), body.get("identifier")
    if token is not None and (not isinstance(token, str) or not token.strip()):
        raise InvalidMessage("identifier", "must be the token of a device, or a phone number")
    changes.aliases.append(names.of_person(user))
    if alias.registration is not None:
        new = token or alias.registration
        if new != alias.registration:
            removed = {"change": "unregister_device", "user": alias.user, "registration": alias.registration}
            changes.listed.append(removed)
        changes.aliases += [aliases.Alias(alias.label, alias.value, user, new), names.of_device(user, new)]
        given = {"app_version": body.get("game_version"), **_place(body)}
        changes.listed.append(subscriptions.register(user, new, given, "", on=on))
        return
    with reading(services) as conn:
        found = profile.find(conn, alias.user)
    number = token or (found.phone if found is not None else None)
    if number is None:
        raise missing("player")
    if token is not None or user != alias.user:
        changes.listed.append({"change": "bind_phone", "user": user, "phone": number})
    if user != alias.user:
        changes.listed.append({"change": "bind_phone", "user": alias.user, "phone": None})
        changes.aliases += [aliases.Alias(alias.label, alias.value, user), names.of_number(user)]
    if on is False:
        changes.listed.append({"change": "opt_out", "phone": number, "source": "onesignal"})
    elif on is True and found is not None and (found.opted_out or "sms" in found.opted_out_of):
        raise InvalidMessage(
            "notification_types",
            "cannot lift an opt-out; the person writes START, or DELETE /v1/opt-outs/{phone} says who asked for it",
        )


async def session(request: Request) -> Response:
    """Take a new session of a device: whatever it says of itself."""
    return await update(request)


async def focus(request: Request) -> Response:
    """Take how long a session lasted, which nobody needs here."""
    await admitted(request, Scope.AUDIENCE)
    await run_in_threadpool(people.subscription, here(request), request.path_params["id"])
    return said(with_warnings({"success": True}, ["state and active_time were ignored: they are not kept here"]))


async def refused(request: Request) -> Response:
    """Refuse purchases and exports."""
    await admitted(request, Scope.AUDIENCE)
    what = request.url.path.rpartition("/")[2]
    told = "purchases are not kept here; put what segments need into tags"
    if what == "csv_export":
        told = "no file is made here; GET /v1/users/{user} tells who a person is"
    raise InvalidMessage(what, told)


async def view(request: Request) -> Response:
    """Tell about a device or a number."""
    key = await admitted(request, Scope.READ)
    query(request, ("email_auth_hash",))

    def look() -> Json | None:
        services = here(request)
        alias = people.subscription(services, request.path_params["id"])
        with reading(services) as conn:
            found = profile.find(conn, alias.user)
            if alias.registration is not None:
                owner = profile.owner(conn, alias.registration)
                found = found if owner in (None, alias.user) else profile.find(conn, owner)
        return None if found is None else _told(found, alias, shown=key.allows(Scope.AUDIENCE))

    told = await run_in_threadpool(look)
    if told is None:
        raise missing("player")
    return said(told)


def _told(found: profile.Profile, alias: Alias, *, shown: bool) -> Json | None:
    one = None
    if alias.registration is not None:
        one = next((device for device in found.devices if device.registration == alias.registration), None)
        if one is None:
            return None
    told = {**subscriptions.player(found, one), "id": alias.value, "tags": tags.told(found.tags)}
    if not shown and told["identifier"] is not None:
        told["identifier"] = found.masked.phone if one is None else profile.ending(one.registration)
    return told


async def list_all(request: Request) -> Response:
    """List devices, page by page."""
    key = await admitted(request, Scope.READ)
    given = query(request, ("limit", "offset"))
    limit = min(whole(given, "limit", PAGE_LIMIT, 2**31), PAGE_LIMIT)
    offset = whole(given, "offset", 0, OFFSET_LIMIT)

    def look() -> Json:
        services, listed = here(request), []
        with reading(services) as conn:
            rows, total = profile.page_of_devices(conn, limit, offset)
            for user, registration in rows:
                found = profile.find(conn, user)
                alias = names.of_device(user, registration)
                told = None if found is None else _told(found, alias, shown=key.allows(Scope.AUDIENCE))
                listed += [] if told is None else [told]
        return {"total_count": total, "offset": offset, "limit": limit, "players": listed}

    return said(await run_in_threadpool(look))


async def delete(request: Request) -> Response:
    """Take a device or a number away from its person."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    alias = await run_in_threadpool(people.subscription, here(request), request.path_params["id"])
    await people.write(request, Changes([removal(alias)]))
    return said({"success": True})
