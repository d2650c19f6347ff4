"""``/gonative/registration``: the form that apps of GoNative (Median) post by themselves about their device.

Such an app posts JSON to one fixed address, at its registration and at pages that its settings name, with the page's
cookies and no header of ours. So the user token may also be the cookie ``knocktwice_token``, or custom data that the
page gave the app. A page elsewhere cannot use somebody's cookie: the body must be ``application/json``, for which
browsers ask first, and no other origin is let in here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Request, Security

from knocktwice_shared.messages import Platform
from knocktwice_shared.user_tokens import UserScope
from knocktwice_worker.gateway.auth.access import Here, Out, bearer
from knocktwice_worker.gateway.auth.persons import TOKEN, admit_person
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.routes.me import admit_device, draft, reported
from knocktwice_worker.gateway.schemas.me import AppForm, AppRegistered, NotUsed
from knocktwice_worker.notation import time_zones

router = APIRouter(prefix="/gonative", tags=["me"])

#: The cookie, and the custom data, that may hold the token.
COOKIE, CUSTOM = "knocktwice_token", "customData_knocktwice_token"
#: A device token of APNs, which FCM does not know.
_APNS = re.compile(r"[0-9A-Fa-f]{64,200}")


@router.post("/registration", status_code=202, openapi_extra=Takes(AppForm))
async def register_from_app(
    request: Request, outbox: Out, services: Here, _: Annotated[Any, Security(TOKEN, scopes=[UserScope.DEVICES])]
) -> AppRegistered:
    """Take what an app of GoNative posts: its push token, and whether its user is subscribed. Other fields are not used."""
    cookie = request.cookies.get(COOKIE)
    if "json" not in request.headers.get("content-type", ""):
        # No body that could hold a token: a stranger is refused as everywhere, before the wrong type is.
        await admit_person(request, bearer(request) or cookie, UserScope.DEVICES)
    form = await read_json(request)
    custom = form.get(CUSTOM)
    given = bearer(request) or (custom if isinstance(custom, str) else None) or cookie
    own = await admit_person(request, given, UserScope.DEVICES)
    told, unused = _understood(form)
    changes = reported(own.user, told)
    if changes["changes"]:
        checked = draft(changes, services.settings.phone_rules)
        await admit_device(request, own.user, told.get("registration"))
        await outbox.send(checked)
    return AppRegistered(registered="registration" in told, not_used=unused)


def _understood(form: dict[str, Any]) -> tuple[dict[str, Any], list[NotUsed]]:
    """Return a device as our own routes take it, and what of the form cannot be used."""
    unused: list[NotUsed] = []
    subscribed, token, platform = (form.get(name) for name in ("oneSignalSubscribed", "oneSignalPushToken", "platform"))
    told: dict[str, Any] = {}
    if isinstance(subscribed, bool):
        told["notifications_enabled"] = subscribed
    if not isinstance(token, str) or not token:
        return told, unused
    if _APNS.fullmatch(token):
        why = "is a token of APNs, which FCM does not know; give the app Firebase's SDK and register what that returns"
        return told, [NotUsed(field="oneSignalPushToken", detail=why)]
    told["registration"] = token
    if platform in set(Platform):
        told["platform"] = platform
    for ours, theirs in (("locale", "language"), ("time_zone", "timeZone"), ("app_version", "appVersion")):
        value = form.get(theirs)
        if isinstance(value, str) and 0 < len(value) <= 64:
            told[ours] = value
    try:
        time_zones.canonical(told.get("time_zone", "UTC"))
    except ValueError as error:
        unused.append(NotUsed(field="timeZone", detail=str(error)))
        del told["time_zone"]
    return told, unused
