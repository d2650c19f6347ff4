"""``/v1/users``: who a person is, who has a number; logging out everywhere, and erasing."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Path

from knocktwice_worker.audience import profile
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, Out, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.http.body import JsonBody
from knocktwice_worker.gateway.http.request_line import WholeParts
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.fields import VISIBLE
from knocktwice_worker.gateway.schemas.people import Devices, FindBody, Found, Person
from knocktwice_worker.gateway.schemas.saved import Queued
from knocktwice_worker.gateway.transactions import reading

router = APIRouter(prefix="/v1/users", tags=["audience"], route_class=WholeParts)

#: People belong to no project: all projects share them.
_SHARED = requires(Scope.AUDIENCE, in_projects=True)

User = Annotated[str, Path(min_length=1, max_length=200, pattern=VISIBLE, description="Your own id of the person.")]


@router.post("/find", response_model=Found, openapi_extra=Takes(FindBody), dependencies=[_SHARED])
def find(services: Here, body: JsonBody) -> Any:
    """Tell who has a number. It stands in the body, because proxies keep addresses."""
    wording.refuse_unfit(body, ("phone",), ("phone",))
    number = wording.phone(body["phone"], "phone", services.settings.phone_rules)
    with reading(services) as conn:
        return {"users": profile.with_number(conn, number)}


@router.get("/{user}", response_model=Person, responses=documented("not-found"))
def show(user: User, services: Here, key: Annotated[Key, requires(Scope.READ, in_projects=True)]) -> Any:
    """Tell who a person is. Number, registrations and the source of consent are masked unless the key has `audience`."""
    found = _found(services, user)
    return dataclasses.asdict(found if key.allows(Scope.AUDIENCE) else found.masked)


@router.get("/{user}/devices", response_model=Devices, responses=documented("not-found"))
def list_devices(user: User, services: Here, key: Annotated[Key, requires(Scope.READ, in_projects=True)]) -> Any:
    """List a person's devices, the last used first. Registrations are masked unless the key has `audience`."""
    found = _found(services, user)
    shown = found if key.allows(Scope.AUDIENCE) else found.masked
    return {"devices": [dataclasses.asdict(one) for one in shown.devices]}


@router.delete("/{user}/devices", status_code=202, dependencies=[_SHARED])
async def log_out_everywhere(user: str, outbox: Out) -> Queued:
    """Say that no device is this person's any more. One on which they log in again is theirs again."""
    await outbox.send(wording.change("log_out_everywhere", {}, (), user=user))
    return Queued()


@router.delete("/{user}", status_code=202, dependencies=[requires(Scope.AUDIENCE)])
async def erase(user: str, outbox: Out) -> Queued:
    """Erase a person everywhere; what was counted stays. Workers do it within a minute.

    It empties the notifications of all projects, so it is not for a key that is bound to one.
    """
    await outbox.send(wording.change("erase_user", {}, (), user=user))
    return Queued()


def _found(services: Any, user: str) -> profile.Profile:
    with reading(services) as conn:
        found = profile.find(conn, user)
    if found is None:
        raise Problem(
            "not-found",
            "nobody of this id is known; what was accepted a moment ago may not be written yet",
            field="user",
        )
    return found
