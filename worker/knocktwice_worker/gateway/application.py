"""The ASGI application: what stands around every request, and what lives as long as the server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from importlib.resources import files
from typing import TYPE_CHECKING

from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from knocktwice_worker import gateway
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway import problems
from knocktwice_worker.gateway.admission import Admission
from knocktwice_worker.gateway.auth.key_pace import KeyPace
from knocktwice_worker.gateway.auth.keyring import KeyRing
from knocktwice_worker.gateway.auth.own_devices import OwnDevices
from knocktwice_worker.gateway.auth.phone_codes import PhoneCodes
from knocktwice_worker.gateway.faces import FACES
from knocktwice_worker.gateway.fast_path import FastPath
from knocktwice_worker.gateway.http.address_limit import AddressLimit
from knocktwice_worker.gateway.http.address_pace import AddressPace
from knocktwice_worker.gateway.http.body import SizeLimit
from knocktwice_worker.gateway.http.client_address import ClientAddresses
from knocktwice_worker.gateway.http.counted_answers import CountedAnswers, Flushes
from knocktwice_worker.gateway.http.origins import Origins
from knocktwice_worker.gateway.http.read_deadline import ReadDeadline
from knocktwice_worker.gateway.http.request_line import RequestLine
from knocktwice_worker.gateway.intake.callbacks import CallbackIntake
from knocktwice_worker.gateway.intake.cell_outboxes import CellOutboxes
from knocktwice_worker.gateway.intake.outbox import Outbox
from knocktwice_worker.gateway.intake.receipts import ReceiptIntake
from knocktwice_worker.gateway.openapi import describe, operation_id
from knocktwice_worker.gateway.routes import ROUTERS
from knocktwice_worker.gateway.routes.health import Readiness
from knocktwice_worker.metrics.scrape import Scrapes
from knocktwice_worker.services import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request, Response
    from starlette.types import ASGIApp

    from knocktwice_worker.services import Services

#: Requests that may wait for the database at once, each in a thread and with a connection; the others wait for their
#: turn. The connections that are left are for who writes callbacks, who reads keys and who looks whether all is well,
#: so none of them waits for a slow query.
THREADS = CONNECTIONS - 3


def create_app(services: Services) -> ASGIApp:
    """Return the ASGI application.

    Args:
        services: what it works with; closing them is the caller's.
    """
    settings = services.settings
    app = describe_app(services)

    async def problems_of_servers() -> list[str]:
        readiness: Readiness = app.state.readiness
        return await readiness.problems(fresh=True)

    served = ReadDeadline(RequestLine(FastPath(app), ROUTERS), problems_of_servers)
    bounded: ASGIApp = SizeLimit(served, limit=settings.gateway_body_bytes)
    if settings.gateway_address_per_s:
        addresses, pace = ClientAddresses(settings.gateway_proxies), AddressPace(settings.gateway_address_per_s)
        bounded = AddressLimit(bounded, addresses, pace, settings.gateway_body_bytes)
    bounded = Origins(bounded, settings.gateway_origins)
    return CountedAnswers(bounded, services.counters) if settings.metrics else bounded


def describe_app(services: Services) -> FastAPI:
    """Return what serves all requests that are not served without the framework, and knows all."""
    settings = services.settings
    app = FastAPI(
        title="knocktwice",
        summary="Push first; if nobody answers in time, an SMS.",
        version=metadata.version("knocktwice"),
        lifespan=partial(_lifespan, services=services),
        # Without a public address: wherever the document was served from.
        servers=[{"url": settings.public_url or "/"}],
        generate_unique_id_function=operation_id,
        # FastAPI's own page loads its scripts from another server.
        docs_url=None,
        redoc_url=None,
        # The document itself is behind a key, unless everybody may see it.
        openapi_url="/openapi.json" if settings.gateway_docs else None,
        # A slash too many is a mistake to be told, not to be sent around with the key in hand.
        redirect_slashes=False,
    )
    problems.handle(app, ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    describe(app, ROUTERS)
    # The other products' ids and lists are of one database.
    for face in FACES if settings.cells_file is None else ():
        face.mount(app)
    if settings.gateway_docs:
        app.add_route("/", _to_docs, include_in_schema=False)
        app.add_route("/docs", _docs, include_in_schema=False)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, services: Services) -> AsyncIterator[None]:
    """Open what requests share, and close it when the last one is answered."""
    settings = services.settings
    app.state.services = services
    app.state.keys = KeyRing(services)
    app.state.pace = KeyPace(services)
    per_s = settings.user_token_per_s
    app.state.person_pace = AddressPace(per_s, whose="one person's apps") if per_s else None
    app.state.own_devices = OwnDevices(services, secret(settings))
    app.state.phone_codes = PhoneCodes(services.redis, secret(settings), settings.phone_codes_per_h)
    app.state.client_addresses = ClientAddresses(settings.gateway_proxies)
    cells = settings.cells()
    app.state.outbox = Outbox(services) if cells is None else CellOutboxes(services, cells)
    app.state.readiness = Readiness(services)
    app.state.admission = Admission(services)
    app.state.counting = Flushes(services)
    app.state.metrics, app.state.metrics_limit = Scrapes(services), CapacityLimiter(2)
    current_default_thread_limiter().total_tokens = THREADS
    app.state.receipts = ReceiptIntake(services)
    app.state.callbacks = CallbackIntake(services)
    yield
    await app.state.receipts.close()
    await app.state.callbacks.close()
    await app.state.outbox.close()
    await app.state.keys.close()
    app.state.pace.close()
    app.state.counting.close()


async def _to_docs(_: Request) -> Response:
    return RedirectResponse("docs")


async def _docs(_: Request) -> Response:
    """Serve the page that shows ``/openapi.json``. All of it comes from this package, so it works offline."""
    return HTMLResponse(files(gateway).joinpath("docs.html").read_text(encoding="utf-8"))
