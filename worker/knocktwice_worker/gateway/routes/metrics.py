"""``/metrics``: the series for Prometheus, for those who may read them."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response, Security

from knocktwice_worker.gateway.auth.access import BEARER, admit, refuse_parameters
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.client_address import ClientAddresses
from knocktwice_worker.gateway.problems import documented, unavailable
from knocktwice_worker.metrics.scrape import CONTENT_TYPE, Scrapes
from knocktwice_worker.services import Services

#: Seconds that looking up a key may take.
_KEY_WITHIN_S = 1.5


async def _reader(request: Request, credentials: Annotated[Any, Depends(BEARER)]) -> None:
    """Let in whoever may read the series."""
    services: Services = request.app.state.services
    if not _known(request, services):
        given = None if credentials is None else credentials.credentials
        try:
            await asyncio.wait_for(admit(request, given, Scope.ADMIN), _KEY_WITHIN_S)
        except TimeoutError:
            raise unavailable("keys cannot be looked up now; KNOCKTWICE_GATEWAY_METRICS_FROM needs none") from None
    refuse_parameters(request)


def _known(request: Request, services: Services) -> bool:
    known = services.settings.gateway_metrics_from
    if not known:
        return False
    try:
        client = ip_network(ClientAddresses(services.settings.gateway_proxies).of(request.scope))
    except ValueError:
        # On a Unix socket a client has no address.
        return False
    return any(client.version == one.version and client.subnet_of(one) for one in known)  # type: ignore[arg-type]


router = APIRouter(tags=["health"], dependencies=[Security(_reader, scopes=[Scope.ADMIN])])


@router.get("/metrics", responses=documented("unavailable"), response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the series of the whole installation in Prometheus' text format.

    Clients whose address is in KNOCKTWICE_GATEWAY_METRICS_FROM need no key.
    """
    scrapes: Scrapes = request.app.state.metrics
    return Response(await run_sync(scrapes.text, limiter=request.app.state.metrics_limit), media_type=CONTENT_TYPE)
