"""Short links: a click is redirected to where the link leads, and recorded as an answer. The token stands for a key."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content.links import link_store, short_links
from knocktwice_worker.gateway.auth.access import Here
from knocktwice_worker.gateway.problems import Problem, documented, without_content
from knocktwice_worker.gateway.transactions import reading

if TYPE_CHECKING:
    from knocktwice_worker.gateway.intake.receipts import ReceiptIntake
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

router = APIRouter(tags=["links"])

#: All links together have one bucket, like one key.
_BUCKET = "links"
#: Seconds that a person who clicks waits for the broker; the write goes on afterwards.
_PATIENCE_S = 2.0
#: Headers with which browsers and proxies mark a request that no person made.
_PURPOSES = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_AHEAD = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)
#: What messengers, mail scanners and search engines fetch a link with, to show or to judge it. "CUBOT" is a phone.
_PREVIEWERS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|preview|scanner|facebookexternalhit|facebookcatalog|viber|skypeuri|embedly"
    r"|mastodon|google-safety|google web|bitlybot|iframely|vkshare|curl/|wget/|urldefense|barracuda"
    + "".join(f"|{re.escape(entry.previews_as)}" for entry in CHANNELS.values() if entry.previews_as),
    re.IGNORECASE,
)
#: Neither is to be kept, nor should the target learn the link, nor anybody find it by searching.
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}


_RESPONSES = documented("not-found", "too-many-requests", "unavailable")
_Token = Annotated[str, Path(description="The end of a link in an SMS.")]


@router.get(short_links.PATH + "{token}", status_code=302, responses=_RESPONSES)
@router.head(short_links.PATH + "{token}", status_code=302, responses=without_content(_RESPONSES))
async def follow(request: Request, services: Here, token: _Token) -> Response:
    """Go where a link leads. What only looks at it in advance goes there, too, and is no click."""
    if not short_links.is_token(token):
        raise _unknown()
    await request.app.state.pace.take(_BUCKET)
    found = await run_in_threadpool(_find, services, token)
    if found is None:
        raise _unknown()
    if _is_click(request):
        await _record(request.app.state.receipts, found)
    return Response(status_code=302, headers={**_HEADERS, "Location": found.target})


def _is_click(request: Request) -> bool:
    if request.method != "GET" or any(_AHEAD.search(request.headers.get(name, "")) for name in _PURPOSES):
        return False
    return not _PREVIEWERS.search(request.headers.get("user-agent", ""))


def _find(services: Services, token: str) -> link_store.Link | None:
    with reading(services) as conn:
        return link_store.find(conn, token)


async def _record(intake: ReceiptIntake, found: link_store.Link) -> None:
    """Record a click. The person waits for the page, so a broker that hangs delays them no longer than the patience."""
    event = intake.click(UUID(found.notification_id), found.step)
    taking = asyncio.create_task(intake.take([event]))
    taking.add_done_callback(_note)
    await asyncio.wait([taking], timeout=_PATIENCE_S)


def _note(taking: asyncio.Task[None]) -> None:
    if not taking.cancelled() and (error := taking.exception()) is not None:
        log.warning("click not recorded", error=type(error).__name__)


def _unknown() -> Problem:
    return Problem("not-found", "this link leads nowhere", headers=_HEADERS)
