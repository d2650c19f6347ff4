"""``/v1/brakes``: messages that are held because far more people than usual would be texted."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from knocktwice_worker.brake import brakes
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.brakes import BrakeList, HeldMessages
from knocktwice_worker.gateway.schemas.fields import Visible
from knocktwice_worker.gateway.transactions import LONG_PATIENCE_MS, reading
from knocktwice_worker.notifications.store.braked import HeldFilter
from knocktwice_worker.services import Services

router = APIRouter(prefix="/v1/brakes", tags=["brakes"])

Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="The brake's number.")]
Reason = Annotated[str, Visible(200, "Kept in the ledger; name no person.")]
Blast = Annotated[str | None, Visible(200, "Only messages of the blast with this key; the brake then stays on.")]
Grace = Annotated[
    float | None,
    Query(ge=0, le=31_536_000, description="Seconds for which the brake stays off; left out: as the settings say."),
]


@router.get("", response_model=BrakeList, dependencies=[requires(Scope.READ)])
def list_all(
    services: Here,
    everything: Annotated[bool, Query(alias="all", description="Those that are over and hold nothing, too.")] = False,
) -> Any:
    """List the brakes that are on or still hold messages, with what these would cost."""
    with reading(services, LONG_PATIENCE_MS) as conn:
        found = brakes.list_all(conn, everything=everything)
        prices = services.channels.prices
        return {
            "brakes": [
                one.as_json() | {"cost": brakes.bill(conn, HeldFilter(one.id), prices).as_json()} for one in found
            ]
        }


@router.post(
    "/{number}/release",
    response_model=HeldMessages,
    dependencies=[requires(Scope.BLASTS)],
    responses=documented("not-found"),
)
def release(
    number: Number,
    services: Here,
    reason: Reason = "released over HTTP",
    blast: Blast = None,
    off_for_s: Grace = None,
) -> Any:
    """Send what a brake holds, and take it off. Receipts, opt-outs, limits and quiet hours hold as always. Repeats do no harm."""
    wanted = HeldFilter(number, blast=blast)
    grace = timedelta(seconds=services.settings.brake_grace_s if off_for_s is None else off_for_s)
    due = _bill(services, wanted)
    try:
        due.messages = brakes.release(services.engine, wanted, grace=grace, reason=reason)
    except brakes.NoSuchBrake:
        raise _missing() from None
    return due.as_json()


@router.post(
    "/{number}/drop",
    response_model=HeldMessages,
    dependencies=[requires(Scope.BLASTS)],
    responses=documented("not-found"),
)
def drop(number: Number, services: Here, reason: Reason = "dropped over HTTP", blast: Blast = None) -> Any:
    """End what a brake holds: these people get no message any more. The brake stays as it is. Repeats do no harm."""
    wanted = HeldFilter(number, blast=blast)
    due = _bill(services, wanted)
    try:
        due.messages = brakes.drop(services.engine, wanted, reason=reason)
    except brakes.NoSuchBrake:
        raise _missing() from None
    return due.as_json()


def _bill(services: Services, wanted: HeldFilter) -> brakes.Bill:
    with reading(services, LONG_PATIENCE_MS) as conn:
        return brakes.bill(conn, wanted, services.channels.prices)


def _missing() -> Problem:
    return Problem("not-found", "no such brake; GET /v1/brakes?all=true lists them", field="number")
