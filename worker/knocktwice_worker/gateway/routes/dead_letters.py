"""``/v1/dead-letters``: messages that nobody could process are found, shown, handed over once more, or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query

from knocktwice_shared.names import Queue, Task
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.dead_letters import DeadLetterPage, DeadLetterShown, Replayed
from knocktwice_worker.gateway.schemas.fields import Time, Visible
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.switches import audit
from knocktwice_worker.switches.audit import REASON_LIMIT, By

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_worker.notifications.inbox.dead_letters import Parked

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="The message's number.")]
Operator = Annotated[Key, requires(Scope.ADMIN)]
Reason = Annotated[str, Visible(REASON_LIMIT, "Why; kept in the audit, so name no person.")]


@router.get("", response_model=DeadLetterPage, dependencies=[requires(Scope.READ)])
def list_all(
    services: Here,
    task: Annotated[Task | None, Query(description="Only those for this task.")] = None,
    queue: Annotated[Queue | None, Query(description="Only those of the tasks that travel on this queue.")] = None,
    error: Annotated[str | None, Visible(200, "Only those whose reason holds this text, in any case.")] = None,
    user: Annotated[str | None, Visible(200, "Only those that name this user.")] = None,
    since: Annotated[Time | None, Query(description="Parked since, with an offset.")] = None,
    until: Annotated[Time | None, Query(description="Parked before, with an offset.")] = None,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The `next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
) -> Any:
    """List parked messages, the oldest first: which task, when, and what is wrong. What may name a person is left out."""
    wanted = dead_letters.Wanted(task, queue, error, user, since, until)
    with reading(services) as conn:
        found = dead_letters.page(conn, wanted, after=after, limit=limit + 1)
    shown = found[:limit]
    return {"dead_letters": list(map(_told, shown)), "next": shown[-1].id if len(found) > limit else None}


@router.get("/{number}", response_model=DeadLetterShown, responses=documented("not-found"))
def show(
    number: Number,
    services: Here,
    key: Annotated[Key, requires(Scope.READ)],
    reveal: Annotated[
        bool, Query(description="Tell the whole reason and the message; the key needs `audience`, too.")
    ] = False,
) -> Any:
    """Tell why a message was parked."""
    if reveal and not key.allows(Scope.AUDIENCE):
        raise Problem("forbidden", f"reveal needs a key with the scope {Scope.AUDIENCE}; leave it out, or make one")
    with reading(services) as conn:
        one = _found(conn, number)
    told = _told(one) | {"characters": len(one.payload), "payload": None}
    return told | {"reason": one.reason, "payload": one.payload} if reveal else told


@router.post("/{number}/replay", response_model=Replayed, responses=documented("not-found"))
def replay(number: Number, services: Here, key: Operator, reason: Reason) -> Any:
    """Hand a parked message to the workers once more. What is there already is not done twice."""
    with writing(services) as conn:
        one = _found(conn, number)
        audit.note(conn, _by(key, reason), "replay", {"dead_letter": number, "task": one.task})
        return {"id": number, "task": services.inbox.replay(one)}


@router.delete("/{number}", status_code=204, responses=documented("not-found"))
def drop(number: Number, services: Here, key: Operator, reason: Reason) -> None:
    """Forget a parked message for good."""
    with writing(services) as conn:
        one = _found(conn, number)
        dead_letters.drop(conn, number)
        audit.note(conn, _by(key, reason), "drop", {"dead_letter": number, "task": one.task})


def _told(one: Parked) -> dict[str, Any]:
    return {"id": one.id, "at": one.at, "message_id": one.message_id, "task": one.task, "reason": one.kind}


def _by(key: Key, reason: str) -> By:
    return By(f"key {key.name}", reason)


def _found(conn: Connection, number: int) -> Parked:
    one = dead_letters.get(conn, number)
    if one is None:
        raise Problem("not-found", "no such parked message; GET /v1/dead-letters lists them", field="number")
    return one
