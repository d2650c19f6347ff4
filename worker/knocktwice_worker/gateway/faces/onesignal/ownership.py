"""``…/identity`` and ``…/subscriptions/{id}``: names of people, and which device or number belongs to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import aliases, profile
from knocktwice_worker.gateway.auth.access import here
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import names, people, subscriptions
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, missing, query, said, with_warnings
from knocktwice_worker.gateway.faces.onesignal.subscriptions import Changes
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice_worker.audience.aliases import Alias
    from knocktwice_worker.services import Services

Json = dict[str, Any]

#: Kinds of tokens in a path that are phone numbers.
_NUMBERS = frozenset({"SMS"})


async def _user(request: Request) -> str:
    """Return the user that a path names, by an alias or by a subscription."""
    given, services = request.path_params, here(request)
    if "subscription" in given:
        return (await run_in_threadpool(people.subscription, services, given["subscription"])).user
    return await run_in_threadpool(people.resolve, services, given["label"], given["id"])


async def view_names(request: Request) -> Response:
    """Tell a person's names."""
    await admitted(request, Scope.READ)
    query(request)
    user = await _user(request)
    one = await run_in_threadpool(people.known, here(request), user)
    return said({"identity": one.identity})


async def add_names(request: Request) -> Response:
    """Give a person further names. A person without an external id gets one by it, and keeps everything."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = await read_json(request), here(request)
    identity = people.identity_of(body.get("identity"))
    user = await _user(request)
    external = identity.pop(names.EXTERNAL, user)
    changes = Changes()
    if external != user:
        if not user.startswith(names.ANONYMOUS):
            raise InvalidMessage(
                "identity.external_id", "is the person's id here and stays; make a person of the new one"
            )
        await run_in_threadpool(_move, services, changes, user, external)
    people.claim(changes, external, identity)
    await run_in_threadpool(people.refuse_taken, services, external, identity)
    await people.write(request, changes)
    one = await run_in_threadpool(people.known, services, external)
    return said({"identity": {**one.identity, **identity}})


def _move(services: Services, changes: Changes, stranger: str, user: str) -> None:
    """Add the changes by which everything of a person without an external id becomes a known person's."""
    with reading(services) as conn:
        found, kept = profile.find(conn, stranger), aliases.of_user(conn, stranger)
    own = (names.ONESIGNAL, names.person(stranger))
    changes.aliases += [
        names.of_number(user) if one.label == names.SUBSCRIPTION and one.registration is None else _given(one, user)
        for one in kept
        if (one.label, one.value) != own
    ]
    # Who asks by the old ids is led to the person from now on.
    changes.aliases += [names.of_person(user), aliases.Alias(*own, user)]
    changes.aliases.append(aliases.Alias(names.SUBSCRIPTION, names.number(stranger), user))
    if found is None:
        return
    for one in found.devices:
        changes.listed.append({"change": "register_device", "user": user, "registration": one.registration})
    if found.phone is not None:
        changes.listed.append({"change": "bind_phone", "user": user, "phone": found.phone})
        changes.listed.append({"change": "bind_phone", "user": stranger, "phone": None})
    if found.tags:
        changes.listed.append({"change": "set_tags", "user": user, "tags": dict(found.tags)})


def _given(one: Alias, user: str) -> Alias:
    return aliases.Alias(one.label, one.value, user, one.registration)


async def remove_name(request: Request) -> Response:
    """Forget one of a person's names."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    services, label = here(request), request.path_params["label_to_delete"]
    if label in (names.EXTERNAL, names.ONESIGNAL):
        raise InvalidMessage(label, "is the person's id here and stays; delete the user instead")
    user = await _user(request)

    def forget() -> bool:
        with writing(services) as conn:
            return aliases.remove(conn, user, names.label(label))

    if not await run_in_threadpool(forget):
        raise missing("alias")
    return said({"identity": (await run_in_threadpool(people.known, services, user)).identity})


async def create(request: Request) -> Response:
    """Give a person a device or a number."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body = await read_json(request)
    given = subscriptions.checked(body.get("subscription"), "subscription.")
    user, changes = await _user(request), Changes()
    alias = subscriptions.add(changes, user, given, "subscription.")
    changes.aliases.append(names.of_person(user))
    await people.write(request, changes)
    return said(with_warnings({"subscription": {**given, "id": alias.value}}, changes.warnings), 201)


async def update(request: Request) -> Response:
    """Change a device or a number: its token, and whether it is notified."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = await read_json(request), here(request)
    given = subscriptions.checked(body.get("subscription"), "subscription.")
    alias = await _asked(request, services)
    changes = Changes()
    await run_in_threadpool(_update, services, changes, alias, given)
    await people.write(request, changes)
    return said(with_warnings({}, changes.warnings), 202)


async def _asked(request: Request, services: Services) -> Alias:
    """Return what a path names: a subscription by its id, or by its token."""
    path = request.path_params
    if "token" not in path:
        return await run_in_threadpool(people.subscription, services, path["subscription"])

    def look() -> Alias | None:
        with reading(services) as conn:
            if path["kind"] not in _NUMBERS:
                return aliases.find(conn, names.SUBSCRIPTION, [names.device(path["token"])]).get(
                    names.device(path["token"])
                )
            owners = profile.with_number(conn, path["token"])
            return names.of_number(owners[0]) if len(owners) == 1 else None

    found = await run_in_threadpool(look)
    if found is None:
        raise missing("subscription")
    return found


def _update(services: Services, changes: Changes, alias: Alias, given: Mapping[str, Any]) -> None:
    path = "subscription."
    changes.warn(given, subscriptions.COSMETIC, path)
    on, token = subscriptions.enabled(given, path), given.get("token")
    if token is not None and (not isinstance(token, str) or not token.strip()):
        raise InvalidMessage(f"{path}token", "must be the token of a device, or a phone number")
    with reading(services) as conn:
        found = profile.find(conn, alias.user)
    if alias.registration is None:
        _update_number(changes, alias.user, found, token, on)
        return
    owner = alias.user
    if token is not None and token != alias.registration:
        changes.listed.append({"change": "unregister_device", "user": owner, "registration": alias.registration})
        changes.aliases += [names.of_device(owner, token), aliases.Alias(alias.label, alias.value, owner, token)]
    change = subscriptions.register(owner, token or alias.registration, given, path, on=on)
    known = next((one for one in found.devices if one.registration == alias.registration), None) if found else None
    if known is not None and known.platform is not None:
        change["platform"] = known.platform
    changes.listed.append(change)


def _update_number(
    changes: Changes, user: str, found: profile.Profile | None, token: str | None, on: bool | None
) -> None:
    number = token or (found.phone if found else None)
    if number is None:
        raise missing("subscription")
    if token is not None:
        changes.listed.append({"change": "bind_phone", "user": user, "phone": token})
    if on is False:
        changes.listed.append({"change": "opt_out", "phone": number, "source": "onesignal"})
    if on is True and found is not None and (found.opted_out or "sms" in found.opted_out_of):
        # Whoever wrote STOP is texted again when they write START, or when an operator says who asked for it.
        raise InvalidMessage(
            "subscription.enabled",
            "cannot lift an opt-out; the person writes START, or DELETE /v1/opt-outs/{phone} says who asked for it",
        )


async def delete(request: Request) -> Response:
    """Take a device or a number away from its person."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    alias = await run_in_threadpool(people.subscription, here(request), request.path_params["subscription"])
    await people.write(request, Changes([removal(alias)]))
    return said({}, 202)


def removal(alias: Alias) -> Json:
    """Return the change that takes a device or a number away from its person."""
    if alias.registration is None:
        return {"change": "bind_phone", "user": alias.user, "phone": None}
    return {"change": "unregister_device", "user": alias.user, "registration": alias.registration}


async def transfer(request: Request) -> Response:
    """Make a device or a number another person's."""
    await admitted(request, Scope.AUDIENCE)
    query(request)
    body, services = await read_json(request), here(request)
    wanted = body.get("identity")
    if not isinstance(wanted, dict) or len(wanted) != 1:
        raise InvalidMessage("identity", 'must have one name, like {"external_id": "u-17"}')
    ((label, value),) = wanted.items()
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        raise InvalidMessage(f"identity.{label}", "must be text of 1 to 200 characters")
    alias = await run_in_threadpool(people.subscription, services, request.path_params["subscription"])
    user = await run_in_threadpool(people.resolve, services, label, value)
    changes = Changes(
        aliases=[names.of_person(user), aliases.Alias(alias.label, alias.value, user, alias.registration)]
    )
    if user != alias.user:
        await run_in_threadpool(_transfer, services, changes, alias, user)
    await people.write(request, changes)
    one = await run_in_threadpool(people.known, services, user)
    return said({"identity": one.identity}, 202)


def _transfer(services: Services, changes: Changes, alias: Alias, user: str) -> None:
    if alias.registration is not None:
        changes.aliases.append(names.of_device(user, alias.registration))
        changes.listed.append({"change": "register_device", "user": user, "registration": alias.registration})
        return
    with reading(services) as conn:
        found = profile.find(conn, alias.user)
    if found is None or found.phone is None:
        raise missing("subscription")
    changes.aliases.append(names.of_number(user))
    changes.listed.append({"change": "bind_phone", "user": user, "phone": found.phone})
    changes.listed.append({"change": "bind_phone", "user": alias.user, "phone": None})
