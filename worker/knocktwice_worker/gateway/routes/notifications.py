"""``/v1/notifications``: send, look at one, cancel; ``/v1/messages``: the history."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from knocktwice.drafts import Draft
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_worker.gateway import fit_entries, wording
from knocktwice_worker.gateway.auth.access import (
    Here,
    Out,
    admit,
    asked_project,
    bearer,
    of_project,
    outbox,
    refuse_parameters,
    requires,
)
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.fit_entries import Kept
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.intake import idempotency
from knocktwice_worker.gateway.intake.outbox import DURABILITY
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.fields import Project, Time, Visible
from knocktwice_worker.gateway.schemas.history import History, StoryAnswer
from knocktwice_worker.gateway.schemas.notifications import Accepted, Cancel, Notify
from knocktwice_worker.gateway.schemas.saved import Queued
from knocktwice_worker.gateway.transactions import reading
from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.reporting import history, story

router = APIRouter(prefix="/v1", tags=["notifications"])

#: The key of a request, with the right to read, or to send and cancel.
Reader = Annotated[Key, requires(Scope.READ, in_projects=True)]
Notifier = Annotated[Key, requires(Scope.NOTIFY, in_projects=True)]
#: What the history can be asked for of a message.
Reported = Literal["sent", "delivered", "read", "undelivered", "failed", "unknown"]

#: The end of an answer without anything to say about single recipients.
_ALL_WELL = '"duplicate":false,"differs":false,"duplicates":[],"refused":[]'
#: The path at which notifications are sent.
PATH = "/v1/notifications"


def _repeated(
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=idempotency.KEY_LIMIT,
            description="Send the request again with the same key, and it gets the same answer (for a day).",
        ),
    ] = None,
) -> None:
    """Describe the header for the document."""


@router.post(
    "/notifications",
    status_code=202,
    response_model=Accepted,
    openapi_extra=Takes(Notify),
    dependencies=[requires(Scope.NOTIFY, in_projects=True), Depends(_repeated)],
    responses=documented("invalid-field", "idempotency-key-reused"),
)
async def notify(request: Request) -> Response:
    """Knock for one person, or for all in `recipients`: push now, and an SMS later if its condition holds.

    An answer of 202 means that it is kept, as safely as the header `Knocktwice-Durability` says, not that anything was
    sent. After 503 send it again with the same `Idempotency-Key`.
    """
    return await _notify(request)


async def serve(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Serve ``POST /v1/notifications`` without the framework (:mod:`knocktwice_worker.gateway.fast_path`)."""
    response = await _notify(Request(scope, receive))
    await response(scope, receive, send)


async def _notify(request: Request) -> Response:
    key = await admit(request, bearer(request), Scope.NOTIFY, in_projects=True)
    refuse_parameters(request)
    repeated = request.headers.get("idempotency-key")
    if repeated is not None and len(request.headers.getlist("idempotency-key")) > 1:
        raise InvalidMessage("idempotency-key", "is given twice; send one")
    if repeated is not None and not 1 <= len(repeated) <= idempotency.KEY_LIMIT:
        raise InvalidMessage("idempotency-key", f"must have 1 to {idempotency.KEY_LIMIT} characters")
    body = of_project(key, await read_json(request))
    id_, numbers = uuid7(), request.app.state.services.settings.phone_rules

    async def draft_of(asked: Mapping[str, Any], places: Sequence[int] | None) -> Draft:
        draft = wording.batch(asked, id_, numbers, places)
        if draft.parsed is not None:
            with wording.words_of(asked):
                await request.app.state.admission.check(draft.parsed)
        return draft

    if body.get("recipients") is None:
        kept = fit_entries.Kept(await draft_of(body, None), (0,))
    else:
        kept = await fit_entries.keep(body, "recipients", draft_of, wording.repeated_keys)
    claim = None if repeated is None else idempotency.claim(key.id, repeated, body, id_)
    ids = await outbox(request).send(kept.draft, claim)
    headers = {DURABILITY: str(outbox(request).durability)}
    if len(ids) == 1 and not kept.refused:
        headers["Location"] = f"{PATH}/{ids[0]}"
    return Response(_accepted(kept, ids, test=key.test), 202, headers, "application/json")


def _accepted(kept: Kept, ids: Sequence[UUID], *, test: bool) -> str:
    """Return the answer as JSON. Where all is well it is put together from texts, which takes less time."""
    repeated = kept.draft.repeated
    if not repeated and not kept.refused:
        end = ',"test":true}' if test else "}"
        return '{"ids":["' + '","'.join([str(id_) for id_ in ids]) + '"],' + _ALL_WELL + end
    last = max([*kept.places, *(one["index"] for one in kept.refused)])
    by_place = dict(zip(kept.places, map(str, ids), strict=True))
    duplicates = [
        {"index": kept.places[number], "id": str(ids[number]), "differs": differs}
        for number, differs in repeated.items()
    ]
    answer = {
        "ids": [by_place.get(place) for place in range(last + 1)],
        "duplicate": bool(repeated),
        "differs": any(repeated.values()),
        "duplicates": duplicates,
        "refused": kept.refused,
        **({"test": True} if test else {}),
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


@router.get("/notifications/{id}", response_model=StoryAnswer, responses=documented("not-found"))
def show(id: UUID, services: Here, key: Reader) -> Any:  # noqa: A002 - what the path calls it
    """Tell where a notification and its steps stand, and what happened and was decided."""
    with reading(services) as conn:
        told = story.tell(conn, str(id), project=key.project)
    if told is None:
        raise Problem(
            "not-found", "no such notification; one that was accepted a moment ago may not be written yet", field="id"
        )
    return dataclasses.asdict(told)


@router.delete("/notifications/{id}", status_code=202, response_model=Queued)
async def cancel(id: UUID, out: Out, key: Notifier) -> Any:  # noqa: A002 - what the path calls it
    """Stop a notification: what has not been sent is not sent. Also one that is not written yet; repeats do no harm."""
    await out.send(wording.cancellation(of_project(key, {"ids": [str(id)]})))
    return Queued()


@router.post(
    "/cancellations",
    status_code=202,
    response_model=Queued,
    openapi_extra=Takes(Cancel),
)
async def cancel_many(request: Request, out: Out, key: Notifier) -> Any:
    """Stop up to 500 notifications, by ids or by the keys they were sent with."""
    await out.send(wording.cancellation(of_project(key, await read_json(request))))
    return Queued()


@router.get("/messages", response_model=History)
def messages(
    services: Here,
    reader: Reader,
    user: Annotated[str | None, Visible(200)] = None,
    key: Annotated[str | None, Visible(200, "The key that it was sent with.")] = None,
    state: NotificationState | None = None,
    template: Annotated[str | None, Visible(100)] = None,
    provider_status: Annotated[
        Reported | None, Query(description="What a provider reported of one of its messages, like `undelivered`.")
    ] = None,
    since: Annotated[Time | None, Query(description="With an offset, like 2026-11-21T09:30:00Z.")] = None,
    until: Annotated[Time | None, Query(description="Not included.")] = None,
    before: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=history.PAGE_LIMIT)] = 100,
    project: Project = None,
) -> Any:
    """Return the history, newest first. A page may be short or empty and still have a next one."""
    wanted = history.Wanted(
        user,
        key,
        state,
        template,
        since,
        until,
        before,
        limit,
        provider_status,
        project=asked_project(reader, project),
    )
    with reading(services) as conn:
        return dataclasses.asdict(history.page(conn, wanted))
