"""``/v1/me``: what an app or a page says of the person whose token it has; ``/v1/users/{user}/tokens`` makes one.

The person is always the token's: no path and no body names one, so a token cannot touch anybody else. A device that a
token registers belongs to its person from then on, whoever had it before: whoever knows a device's registration has the
device.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from knocktwice.drafts import Draft
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.messages.problems import all_at_once, attempt, fail
from knocktwice_shared.user_tokens import LIFETIME, LIFETIME_LIMIT, UserScope, UserToken, read, sign
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, Out, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.auth.persons import person
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.http.request_line import WholeParts
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.schemas.audience import Device
from knocktwice_worker.gateway.schemas.me import SUBSCRIBED, OwnTags, Permission, TokenMade, TokenWanted
from knocktwice_worker.gateway.schemas.saved import Queued
from knocktwice_worker.notation.phone_numbers import Rules

router = APIRouter(prefix="/v1", tags=["me"], route_class=WholeParts)

_DEVICE = ("platform", "notifications_enabled", "locale", "time_zone", "app_version")
#: The parameters of a route that a token with this scope opens.
_Devices = Annotated[UserToken, person(UserScope.DEVICES)]
_Tags = Annotated[UserToken, person(UserScope.TAGS)]


@router.post(
    "/users/{user}/tokens",
    status_code=201,
    response_model=TokenMade,
    openapi_extra=Takes(TokenWanted, required=False),
    dependencies=[requires(Scope.AUDIENCE, in_projects=True)],
)
async def make_token(user: str, request: Request, response: Response, services: Here) -> TokenMade:
    """Make a token with which this user's app or page may speak for this user. The library makes the same by itself."""
    body = await read_json(request) if request.headers.get("content-type") else {}
    lifetime, scopes = _wanted(body)
    secrets = services.user_token_secrets
    token = sign(user, secrets[0], scopes=scopes, lifetime=lifetime)
    made = read(token, secrets)
    response.headers["Cache-Control"] = "no-store"
    return TokenMade(token=token, expires_at=made.expires_at, scopes=sorted(made.scopes))


@router.put("/me/permission", status_code=202, openapi_extra=Takes(Permission))
async def report_permission(own: _Devices, request: Request, outbox: Out, services: Here) -> Queued:
    """Report whether notifications are on. It becomes the tag `subscribed_to_push`; a device is registered with it."""
    body = await read_json(request)
    _check_permission(body)
    told = draft(reported(own.user, body), services.settings.phone_rules)
    await admit_device(request, own.user, body.get("registration"))
    await outbox.send(told)
    return Queued()


@router.put("/me/devices/{registration}", status_code=202, openapi_extra=Takes(Device))
async def register_own_device(
    registration: str, own: _Devices, request: Request, outbox: Out, services: Here
) -> Queued:
    """Say that a device is the token's person's from now on. Whether notifications are on becomes their tag, too."""
    body = await read_json(request)
    wording.refuse_unknown(body, _DEVICE)
    told = draft(reported(own.user, {**body, "registration": registration}), services.settings.phone_rules)
    await admit_device(request, own.user, registration)
    await outbox.send(told)
    return Queued()


@router.delete("/me/devices/{registration}", status_code=202)
async def unregister_own_device(registration: str, own: _Devices, request: Request, outbox: Out) -> Queued:
    """Say that a device is not the token's person's any more, at logout. Somebody else's device stays as it is."""
    await outbox.send(wording.change("unregister_device", {}, (), user=own.user, registration=registration))
    await run_in_threadpool(request.app.state.own_devices.forget, own.user, registration)
    return Queued()


@router.put("/me/tags", status_code=202, openapi_extra=Takes(OwnTags))
async def tag_oneself(own: _Tags, request: Request, outbox: Out, services: Here) -> Queued:
    """Set tags of the token's person. The operator says which ones, in `KNOCKTWICE_USER_TAGS`."""
    body = await read_json(request)
    _refuse_other_tags(body.get("tags"), services.settings.user_tags)
    await outbox.send(wording.change("set_tags", body, ("tags",), user=own.user))
    return Queued()


async def admit_device(request: Request, user: str, registration: object) -> None:
    """Count a device that a person's app registers.

    Args:
        registration: the device; ``None``: the app names none.

    Raises:
        Problem: the person has as many devices as apps may register.
    """
    if isinstance(registration, str):
        await run_in_threadpool(request.app.state.own_devices.admit, user, registration)


def draft(changes: dict[str, Any], numbers: Rules) -> Draft:
    """Return the message about the changes of one request.

    Raises:
        InvalidMessage: fields are wrong; they are named as the request has them.
    """
    with wording.in_requests_words(alone=True):
        return wording.changes(changes, numbers, datetime.now(UTC))


def reported(user: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of an audience that a report of a device or of a permission makes."""
    changes: list[dict[str, Any]] = []
    if body.get("registration") is not None:
        changes.append({**body, "change": "register_device", "user": user})
    if body.get("notifications_enabled") is not None:
        on = checks.boolean(body["notifications_enabled"], "notifications_enabled")
        changes.append({"change": "set_tags", "user": user, "tags": {SUBSCRIBED: on}})
    return {"changes": changes}


@all_at_once
def _check_permission(body: dict[str, Any]) -> None:
    wording.refuse_unfit(body, ("registration", *_DEVICE), ("notifications_enabled",))
    if body.get("registration") is None:
        for name in _DEVICE:
            if name != "notifications_enabled" and body.get(name) is not None:
                fail(name, "says something of a device; give its registration, too", None)


@all_at_once
def _refuse_other_tags(tags: object, allowed: frozenset[str]) -> None:
    """Refuse tags that only the application sets: a page must not make anybody a gold member."""
    for name in tags if isinstance(tags, dict) else ():
        if name not in allowed and name != SUBSCRIBED:
            fail(f"tags.{name}", "is no tag that apps and pages may set (KNOCKTWICE_USER_TAGS)", None)


@all_at_once
def _wanted(body: dict[str, Any]) -> tuple[timedelta, list[UserScope]]:
    wording.refuse_unknown(body, ("lifetime_s", "scopes"))
    return attempt(_lifetime, LIFETIME, body), attempt(_scopes, [], body)


def _lifetime(body: dict[str, Any]) -> timedelta:
    seconds = body.get("lifetime_s", int(LIFETIME.total_seconds()))
    most = int(LIFETIME_LIMIT.total_seconds())
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= most:
        raise InvalidMessage("lifetime_s", f"must be a whole number of seconds, 1 to {most}")
    return timedelta(seconds=seconds)


def _scopes(body: dict[str, Any]) -> list[UserScope]:
    scopes = body.get("scopes", list(UserScope))
    if (
        not isinstance(scopes, list)
        or not scopes
        or not all(isinstance(s, str) and s in set(UserScope) for s in scopes)
    ):
        raise InvalidMessage("scopes", f"must be a list of {', '.join(UserScope)}")
    return [UserScope(scope) for scope in scopes]
