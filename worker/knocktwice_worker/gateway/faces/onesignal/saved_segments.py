"""``/apps/{app_id}/segments``: OneSignal's segments are ours, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.gateway.auth.access import here
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import filters
from knocktwice_worker.gateway.faces.onesignal.answers import admitted, missing, query, said, whole
from knocktwice_worker.gateway.http.body import read_json
from knocktwice_worker.gateway.transactions import reading, writing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Json = dict[str, Any]

#: Most segments of a page.
PAGE_LIMIT = 300


async def create(request: Request) -> Response:
    """Save a segment. Its id is its name."""
    await admitted(request, Scope.TEMPLATES)
    query(request)
    body = await read_json(request)
    for name in body:
        if name not in ("name", "filters", "description"):
            told = "is made here: a segment's id is its name" if name == "id" else "is not a field that is served here"
            raise InvalidMessage(name, told)
    name, found = _name(body), segment_filter.parse(filters.read(body.get("filters")), "filters")

    def save() -> bool:
        with writing(here(request)) as conn:
            if _find(conn, name) is not None:
                return False
            segments.put(conn, name, found, str(body.get("description") or ""))
            return True

    if not await run_in_threadpool(save):
        return said({"success": False, "errors": [f"there is a segment {name!r} already"]}, 409)
    return said({"success": True, "id": name}, 201)


def _name(body: Json) -> str:
    if not isinstance(body.get("name"), str):
        raise InvalidMessage("name", "must be text")
    return str(body["name"])


def _find(conn: Any, name: str) -> segments.Segment | None:
    try:
        return segments.get(conn, name)
    except segments.UnknownSegment:
        return None


async def update(request: Request) -> Response:
    """Change the filters or the description of a segment. A name stays, because blasts know a segment by it."""
    await admitted(request, Scope.TEMPLATES)
    query(request)
    body, name = await read_json(request), request.path_params["id"]
    for field in body:
        if field not in ("name", "filters", "description"):
            raise InvalidMessage(field, "is not a field that is served here")
    if body.get("name", name) != name:
        raise InvalidMessage("name", "is the segment's id here and stays; make another segment")
    given = None if body.get("filters") is None else segment_filter.parse(filters.read(body["filters"]), "filters")

    def save() -> bool:
        with writing(here(request)) as conn:
            found = _find(conn, name)
            if found is not None:
                described = body.get("description", found.description)
                segments.put(conn, name, given or found.filter, str(described or ""))
            return found is not None

    if not await run_in_threadpool(save):
        raise missing("segment")
    return said({"success": True, "id": name})


async def view(request: Request) -> Response:
    """Tell how many people a segment has. Its filters are told in our language, which can say more."""
    await admitted(request, Scope.READ)
    query(request, ("include-segment-detail",))

    def look() -> Json | None:
        with reading(here(request)) as conn:
            found = _find(conn, request.path_params["id"])
            if found is None:
                return None
            payload = {
                "id": found.name,
                "name": found.name,
                "description": found.description,
                "created_at": int(found.updated_at.timestamp()),
                "source": "custom",
                "filter": segment_filter.dump(found.filter),
            }
            return {"subscriber_count": segments.count(conn, found.filter), "payload": payload}

    told = await run_in_threadpool(look)
    if told is None:
        raise missing("segment")
    return said(told)


async def list_all(request: Request) -> Response:
    """List the segments."""
    await admitted(request, Scope.READ)
    given = query(request, ("limit", "offset"))
    limit = min(whole(given, "limit", PAGE_LIMIT, 2**31), PAGE_LIMIT)
    offset = whole(given, "offset", 0, 2**31)

    def look() -> Json:
        with reading(here(request)) as conn:
            found = segments.list_all(conn)
        listed = [
            {
                "id": one.name,
                "name": one.name,
                "created_at": one.updated_at.isoformat(),
                "updated_at": one.updated_at.isoformat(),
                "app_id": request.path_params["app"],
                "read_only": False,
                "is_active": True,
            }
            for one in found[offset : offset + limit]
        ]
        return {"total_count": len(found), "offset": offset, "limit": limit, "segments": listed}

    return said(await run_in_threadpool(look))


async def delete(request: Request) -> Response:
    """Delete a segment. Its people stay."""
    await admitted(request, Scope.TEMPLATES)
    query(request)

    def forget() -> bool:
        with writing(here(request)) as conn:
            try:
                segments.delete(conn, request.path_params["id"])
            except segments.UnknownSegment:
                return False
            return True

    if not await run_in_threadpool(forget):
        raise missing("segment")
    return said({"success": True})
