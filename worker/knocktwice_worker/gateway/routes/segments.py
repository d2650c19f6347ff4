"""``/v1/segments``: saved groups of people, as filters."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.body import JsonBody
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.routes.templates import save
from knocktwice_worker.gateway.schemas.saved import Changed
from knocktwice_worker.gateway.schemas.segments import (
    MembersAnswer,
    SegmentAnswer,
    SegmentBody,
    SegmentList,
    SegmentPreviewBody,
)
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.services import Services

router = APIRouter(prefix="/v1", tags=["segments"])

#: Most ids that a preview draws.
SAMPLE_LIMIT = 100

Name = Annotated[str, Path(min_length=1, max_length=segments.NAME_LIMIT)]
Sample = Annotated[int, Query(ge=0, le=SAMPLE_LIMIT, description="Ids of so many of them, drawn at random.")]


@router.get("/segments", response_model=SegmentList, dependencies=[requires(Scope.READ, in_projects=True)])
def list_all(services: Here) -> Any:
    """List the segments."""
    with reading(services) as conn:
        return {"segments": [_told(segment) for segment in segments.list_all(conn)]}


@router.post(
    "/audience/preview",
    response_model=MembersAnswer,
    openapi_extra=Takes(SegmentPreviewBody),
    dependencies=[requires(Scope.READ, in_projects=True)],
)
def try_out(services: Here, body: JsonBody) -> Any:
    """Tell how many people a filter describes, and some of them, without saving it."""
    wording.refuse_unknown(body, ("filter", "sample"))
    sample = body.get("sample", 0)
    if type(sample) is not int or not 0 <= sample <= SAMPLE_LIMIT:
        raise InvalidMessage("sample", f"must be a whole number from 0 to {SAMPLE_LIMIT}")
    return _members(services, segment_filter.parse(body.get("filter")), sample)


@router.get(
    "/segments/{name}",
    response_model=SegmentAnswer,
    dependencies=[requires(Scope.READ, in_projects=True)],
    responses=documented("not-found"),
)
def show(name: Name, services: Here) -> Any:
    """Return a segment's filter."""
    return _told(_stored(services, name))


@router.get(
    "/segments/{name}/preview",
    response_model=MembersAnswer,
    dependencies=[requires(Scope.READ, in_projects=True)],
    responses=documented("not-found"),
)
def show_members(name: Name, services: Here, sample: Sample = 0) -> Any:
    """Tell how many people belong to a segment now, and some of them."""
    return _members(services, _stored(services, name).filter, sample)


@router.put(
    "/segments/{name}",
    response_model=Changed,
    openapi_extra=Takes(SegmentBody),
    dependencies=[requires(Scope.TEMPLATES)],
)
def put(name: Name, services: Here, body: JsonBody) -> Any:
    """Save a segment, in place of any of that name."""
    return save(services, "segments", name, body)


@router.delete(
    "/segments/{name}", status_code=204, dependencies=[requires(Scope.TEMPLATES)], responses=documented("not-found")
)
def delete(name: Name, services: Here) -> None:
    """Delete a segment. Its people stay."""
    with writing(services) as conn:
        try:
            segments.delete(conn, name)
        except segments.UnknownSegment:
            raise _unknown(name) from None


def _members(services: Services, filter: segment_filter.Filter, sample: int) -> dict[str, object]:  # noqa: A002
    with reading(services) as conn:
        count = segments.count(conn, filter)
        return {"count": count, "sample": segments.sample(conn, filter, sample) if sample else []}


def _stored(services: Services, name: str) -> segments.Segment:
    with reading(services) as conn:
        try:
            return segments.get(conn, name)
        except segments.UnknownSegment:
            raise _unknown(name) from None


def _told(segment: segments.Segment) -> dict[str, object]:
    return {
        "name": segment.name,
        "description": segment.description,
        "filter": segment_filter.dump(segment.filter),
        "updated_at": segment.updated_at,
    }


def _unknown(name: str) -> Problem:
    return Problem("not-found", f"no segment {name!r}; GET /v1/segments lists those there are", field="name")
