"""``/v1/users``: devices, numbers, tags and consent; ``/v1/audience``: many changes of these at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from knocktwice.drafts import Draft
from knocktwice_shared.messages.problems import all_at_once, fail
from knocktwice_worker.gateway import fit_entries, wording
from knocktwice_worker.gateway.auth.access import Here, Out, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.http.request_line import WholeParts
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.schemas.audience import Changes, ChangesTaken, Consent, Device, PhoneBody, Tags
from knocktwice_worker.gateway.schemas.saved import Queued, Unfit

#: People belong to no project: all projects share them.
_SHARED = requires(Scope.AUDIENCE, in_projects=True)

router = APIRouter(prefix="/v1", tags=["audience"], dependencies=[_SHARED], route_class=WholeParts)

_DEVICE = ("platform", "notifications_enabled", "locale", "time_zone", "app_version")


@router.put("/users/{user}/devices/{registration}", status_code=202, openapi_extra=Takes(Device))
async def register_device(user: str, registration: str, request: Request, outbox: Out) -> Queued:
    """Say that a device is this user's from now on, and nobody else's: at login, and whenever a field changes."""
    body = await read_json(request)
    await outbox.send(wording.change("register_device", body, _DEVICE, user=user, registration=registration))
    return Queued()


@router.delete("/users/{user}/devices/{registration}", status_code=202)
async def unregister_device(user: str, registration: str, outbox: Out) -> Queued:
    """Say that a device is not this user's any more. Call it at logout. Whoever logged in on it since keeps it."""
    await outbox.send(wording.change("unregister_device", {}, (), user=user, registration=registration))
    return Queued()


@router.put("/users/{user}/phone", status_code=202, openapi_extra=Takes(PhoneBody))
async def bind_phone(user: str, request: Request, outbox: Out, services: Here) -> Queued:
    """Give a user's number for SMS. Another number than before ends the consent to marketing."""
    body = await read_json(request)
    wording.refuse_unfit(body, ("phone",), () if "phone" in body else ("phone",))
    # null forgets it, as in the library.
    if body["phone"] is not None:
        body = {**body, "phone": wording.phone(body["phone"], "phone", services.settings.phone_rules)}
    await outbox.send(wording.change("bind_phone", body, ("phone",), user=user))
    return Queued()


@router.delete("/users/{user}/phone", status_code=202)
async def unbind_phone(user: str, outbox: Out) -> Queued:
    """Forget a user's number."""
    await outbox.send(wording.change("bind_phone", {}, (), user=user, phone=None))
    return Queued()


@router.put("/users/{user}/tags", status_code=202, openapi_extra=Takes(Tags))
async def tag_user(user: str, request: Request, outbox: Out) -> Queued:
    """Say something about a user that segments can ask for. What is not named stays; null removes a tag."""
    body = await read_json(request)
    await outbox.send(wording.change("set_tags", body, ("tags", "locale", "time_zone"), user=user))
    return Queued()


@router.delete("/users/{user}/tags/{tag}", status_code=202)
async def untag_user(user: str, tag: str, outbox: Out) -> Queued:
    """Remove one tag of a user."""
    await outbox.send(wording.change("set_tags", {}, (), user=user, tags={tag: None}))
    return Queued()


@router.put("/users/{user}/consent", status_code=202, openapi_extra=Takes(Consent))
async def set_consent(user: str, request: Request, outbox: Out) -> Queued:
    """Note that a user agrees to marketing by SMS to the number they have, or no longer does."""
    body = await read_json(request)
    wording.refuse_unfit(body, ("granted", "source"), ("granted", "source"))
    said = {"marketing": body["granted"], "source": body["source"]}
    await outbox.send(wording.change("set_consent", said, said, renamed={"marketing": "granted"}, user=user))
    return Queued()


@router.delete("/users/{user}/consent", status_code=202)
async def withdraw_consent(
    user: str,
    outbox: Out,
    source: Annotated[str, Query(description="Where they said so.")] = "withdrawn over HTTP",
) -> Queued:
    """Note that a user no longer agrees to marketing by SMS."""
    await outbox.send(wording.change("set_consent", {}, (), user=user, marketing=False, source=source))
    return Queued()


@router.post("/audience", status_code=202, openapi_extra=Takes(Changes))
async def change_many(request: Request, outbox: Out, services: Here, key: Annotated[Key, _SHARED]) -> ChangesTaken:
    """Take up to 500 changes at once, and name those that cannot be made; for imports, and for ids of any length.

    `erase_user` empties the notifications of all projects, so it is not for a key that is bound to one.
    """
    now, numbers = datetime.now(UTC), services.settings.phone_rules

    async def draft_of(asked: Mapping[str, Any], places: Sequence[int]) -> Draft:
        draft = wording.changes(asked, numbers, now, places)
        if key.project is not None:
            _refuse_erasures(draft.wire["changes"])
        return draft

    kept = await fit_entries.keep(await read_json(request), "changes", draft_of)
    await outbox.send(kept.draft)
    return ChangesTaken(accepted=len(kept.places), refused=[Unfit(**one) for one in kept.refused])


@all_at_once
def _refuse_erasures(changes: Sequence[Mapping[str, Any]]) -> None:
    for place, change in enumerate(changes):
        if change["change"] == "erase_user":
            fail(f"changes[{place}].change", "erases a person in all projects; it needs a key without a project", None)
