"""``/v1/inbound``: what people wrote to our senders."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, asked_project, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.schemas.fields import Time, Visible
from knocktwice_worker.gateway.schemas.inbound import InboundPage
from knocktwice_worker.gateway.transactions import reading

router = APIRouter(prefix="/v1", tags=["inbound"])


class Keyword(StrEnum):
    """The wish of a text."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"
    NONE = "none"


@router.get("/inbound", response_model=InboundPage)
def list_all(
    services: Here,
    key: Annotated[Key, requires(Scope.READ, in_projects=True)],
    number: Annotated[str | None, Visible(40, "Who wrote, in E.164 (a plus in an address is %2B).")] = None,
    user: Annotated[str | None, Visible(200, "Of the number that this person has now.")] = None,
    keyword: Annotated[Keyword | None, Query(description="`none`: what is no keyword.")] = None,
    since: Annotated[Time | None, Query(description="With an offset, like 2026-11-21T09:30:00Z.")] = None,
    before: Annotated[UUID | None, Query(description="The `next` of the page before.")] = None,
    project: Annotated[str | None, Visible(40, "To own senders of this project.")] = None,
    limit: Annotated[int, Query(ge=1, le=inbound_texts.PAGE_LIMIT)] = 100,
    reveal: Annotated[
        bool, Query(description="Tell numbers and texts in full; the key needs `audience`, too.")
    ] = False,
) -> Any:
    """Return the texts that people wrote, newest first; for a project's key those to its own senders. Numbers are masked, and texts left out, without `reveal`."""
    if reveal and not key.allows(Scope.AUDIENCE):
        raise Problem("forbidden", f"reveal needs a key with the scope {Scope.AUDIENCE}; leave it out, or make one")
    if number is not None:
        number = wording.phone(number, "number", services.settings.phone_rules.of_anyone)
    wanted = inbound_texts.Wanted(number, user, keyword, since, before, limit, asked_project(key, project))
    with reading(services) as conn:
        found = inbound_texts.page(conn, wanted)
    texts = [text.shown(reveal=reveal) for text in found[:limit]]
    return {"texts": texts, "next": texts[-1]["id"] if len(found) > limit else None}
