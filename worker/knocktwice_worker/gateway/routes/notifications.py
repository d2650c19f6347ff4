"""``/v1/notifications``: send, look at one, cancel; ``/v1/messages``: the history."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from knocktwice_shared.ids import uuid7
from knocktwice_worker import story
from knocktwice_worker.gateway import history, idempotency, wording
from knocktwice_worker.gateway.access import Here, Out, requires
from knocktwice_worker.gateway.body import read_json
from knocktwice_worker.gateway.database import reading
from knocktwice_worker.gateway.keys import Key, Scope
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas import Accepted, Cancel, History, Notify, Queued, StoryAnswer, Time, Visible
from knocktwice_worker.lifecycle import NotificationState

router = APIRouter(prefix="/v1", tags=["notifications"])


@router.post(
    "/notifications",
    status_code=202,
    response_model=Accepted,
    openapi_extra=Takes(Notify),
    responses=documented("invalid-field", "idempotency-key-reused"),
)
async def notify(
    request: Request,
    outbox: Out,
    key: Annotated[Key, requires(Scope.NOTIFY)],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=idempotency.KEY_LIMIT,
            description="Send the request again with the same key, and it gets the same answer (for a day).",
        ),
    ] = None,
) -> Response:
    """Knock for one person, or for all in `recipients`: push now, and an SMS later if its condition holds.

    An answer of 202 means that nothing is lost any more, not that anything was sent.
    """
    body = await read_json(request)
    draft = wording.batch(body, uuid7())
    claim = None if idempotency_key is None else idempotency.claim(key.id, idempotency_key, body, draft.id)
    ids = await outbox.send(draft, claim)
    text = '{"ids":["' + '","'.join(str(id_) for id_ in ids) + '"]}'
    headers = {"Location": f"/v1/notifications/{ids[0]}"} if len(ids) == 1 else None
    return Response(text, 202, headers, "application/json")


@router.get(
    "/notifications/{id}",
    response_model=StoryAnswer,
    dependencies=[requires(Scope.READ)],
    responses=documented("not-found"),
)
def show(id: UUID, services: Here) -> Any:  # noqa: A002 - what the path calls it
    """Tell where a notification and its steps stand, and what happened and was decided."""
    with reading(services) as conn:
        told = story.tell(conn, str(id))
    if told is None:
        raise Problem(
            "not-found", "no such notification; one that was accepted a moment ago may not be written yet", field="id"
        )
    return dataclasses.asdict(told)


@router.delete("/notifications/{id}", status_code=202, response_model=Queued, dependencies=[requires(Scope.NOTIFY)])
async def cancel(id: UUID, outbox: Out) -> Any:  # noqa: A002 - what the path calls it
    """Stop a notification: what has not been sent is not sent. Also one that is not written yet; repeats do no harm."""
    await outbox.send(wording.cancellation({"ids": [str(id)]}))
    return Queued()


@router.post(
    "/cancellations",
    status_code=202,
    response_model=Queued,
    openapi_extra=Takes(Cancel),
    dependencies=[requires(Scope.NOTIFY)],
)
async def cancel_many(request: Request, outbox: Out) -> Any:
    """Stop up to 500 notifications, by ids or by the keys they were sent with."""
    await outbox.send(wording.cancellation(await read_json(request)))
    return Queued()


@router.get("/messages", response_model=History, dependencies=[requires(Scope.READ)])
def messages(
    services: Here,
    user: Annotated[str | None, Visible(200)] = None,
    key: Annotated[str | None, Visible(200, "The key that it was sent with.")] = None,
    state: NotificationState | None = None,
    template: Annotated[str | None, Visible(100)] = None,
    since: Annotated[Time | None, Query(description="With an offset, like 2026-11-21T09:30:00Z.")] = None,
    until: Annotated[Time | None, Query(description="Not included.")] = None,
    before: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=history.PAGE_LIMIT)] = 100,
) -> Any:
    """Return the history, newest first. A page may be short or empty and still have a next one."""
    wanted = history.Wanted(user, key, state, template, since, until, before, limit)
    with reading(services) as conn:
        return history.page(conn, wanted)
