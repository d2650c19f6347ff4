"""``/v1/seen`` and ``/v1/me/seen``: somebody has seen elsewhere what notifications say, so no SMS is needed.

A key of a project reports of the project's notifications only, and a user token of its person's. Both are looked up, so
a notification that was accepted a moment ago may not be known yet; it is named in the answer, and can be reported
again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from knocktwice_shared.messages import Receipt, ReceiptEvent, checks
from knocktwice_shared.messages.problems import all_at_once
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_shared.user_tokens import UserScope, UserToken
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.auth.persons import person
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.intake.outbox import COMMITTED, DURABILITY
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.routes.receipts import Taken
from knocktwice_worker.gateway.schemas.saved import Unfit
from knocktwice_worker.gateway.schemas.seen import Seen
from knocktwice_worker.gateway.transactions import reading
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from uuid import UUID

    from knocktwice_worker.gateway.intake.receipts import ReceiptIntake
    from knocktwice_worker.services import Services

router = APIRouter(prefix="/v1", tags=["receipts"])

_UNKNOWN = "is no such notification; one that was accepted a moment ago may not be written yet"


@router.post("/seen", status_code=202, openapi_extra=Takes(Seen))
async def report_seen(
    request: Request, response: Response, services: Here, key: Annotated[Key, requires(Scope.NOTIFY, in_projects=True)]
) -> Taken:
    """Report that people have seen elsewhere what up to 500 notifications say. It counts as a click does."""
    ids = _wanted(await read_json(request))
    known = set(ids)
    if key.project is not None:
        known = await run_in_threadpool(_own, services, ids, project=key.project)
    return await _take(request, response, ids, known)


@router.post("/me/seen", status_code=202, openapi_extra=Takes(Seen))
async def report_seen_by_oneself(
    request: Request, response: Response, services: Here, own: Annotated[UserToken, person(UserScope.DEVICES)]
) -> Taken:
    """Report that the token's person has seen elsewhere what notifications to them say."""
    ids = _wanted(await read_json(request))
    return await _take(request, response, ids, await run_in_threadpool(_own, services, ids, user=own.user))


def _own(services: Services, ids: list[UUID], **of: Any) -> set[UUID]:
    with reading(services) as conn:
        return store.belonging(conn, ids, **of)


async def _take(request: Request, response: Response, ids: list[UUID], known: set[UUID]) -> Taken:
    now = datetime.now(UTC)
    events = [ReceiptEvent(id_, Receipt.SEEN, now) for id_ in dict.fromkeys(ids) if id_ in known]
    if events:
        intake: ReceiptIntake = request.app.state.receipts
        await intake.take(events)
    response.headers[DURABILITY] = COMMITTED
    refused = [
        Unfit(index=place, field=f"notifications[{place}]", detail=_UNKNOWN)
        for place, id_ in enumerate(ids)
        if id_ not in known
    ]
    return Taken(accepted=len(ids) - len(refused), refused=refused)


@all_at_once
def _wanted(body: dict[str, Any]) -> list[UUID]:
    wording.refuse_unknown(body, ("notifications",))
    ids = checks.list_of(body.get("notifications"), "notifications", 1, BATCH_LIMIT)
    return list(checks.each(lambda one: checks.uuid(one, ""), ids, "notifications"))
