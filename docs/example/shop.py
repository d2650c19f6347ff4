"""A coffee shop: a web page and a FastAPI application that notifies its customers. ``make example`` runs it.

It runs ``knocktwice up`` beside it, unless one runs already. Its options are ``--port`` and those of ``knocktwice up``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID  # noqa: TC003 - pydantic reads it

import aiohttp
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel

from knocktwice import AsyncClient, BrokerUnavailable, InvalidMessage, Push, Sms
from knocktwice_shared.names import HOME, STACK_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PAGE = Path(__file__).with_name("shop.html")
KNOCKTWICE = [sys.executable, "-m", "knocktwice_worker.cli"]
#: How long a customer may ignore the push; in a real shop it is minutes.
PATIENCE = timedelta(seconds=10)


class Wish(BaseModel):
    """The form of the page."""

    customer: str
    phone: str
    drink: str


class Order(BaseModel):
    """An order, and the notification about it once it is ready."""

    number: int
    customer: str
    drink: str
    notification: UUID | None = None
    picked_up: bool = False
    story: str = "is being made"


class Shop:
    """The orders, the client that notifies, and the gateway that tells what became of it."""

    def __init__(self, client: AsyncClient, http: aiohttp.ClientSession) -> None:
        self.client, self.http = client, http
        self.orders: dict[int, Order] = {}
        self.numbers = itertools.count(1)

    def order(self, number: int) -> Order:
        """Return an order, or 404."""
        if number not in self.orders:
            raise HTTPException(404, f"there is no order {number}")
        return self.orders[number]

    async def look(self, order: Order) -> None:
        """Ask the gateway how the notification stands."""
        if order.notification is None:
            return
        async with self.http.get(f"/v1/notifications/{order.notification}") as answer:
            # Accepted a moment ago, it may not have its row yet.
            if answer.status == 200:
                told = await answer.json()
                order.story = (
                    f"{told['state']}: {told['moments'][-1]['sentence']}" if told["moments"] else told["state"]
                )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what lives as long as the application."""
    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}
    async with AsyncClient() as client, aiohttp.ClientSession(os.environ["GATEWAY"], headers=headers) as http:
        app.state.shop = Shop(client, http)
        yield


app = FastAPI(title="A coffee shop", lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(PAGE)


@app.get("/orders")
async def orders(request: Request) -> list[Order]:
    """Return all orders, the newest first."""
    shop: Shop = request.app.state.shop
    await asyncio.gather(*(shop.look(order) for order in shop.orders.values()))
    return sorted(shop.orders.values(), key=lambda order: -order.number)


@app.post("/orders", status_code=201)
async def order(wish: Wish, request: Request) -> Order:
    """Take an order. In a real shop the app says who its customer is, at login."""
    shop: Shop = request.app.state.shop
    await shop.client.register_device(wish.customer, f"phone-of-{wish.customer}", notifications_enabled=True)
    await shop.client.bind_phone(wish.customer, wish.phone)
    taken = Order(number=next(shop.numbers), customer=wish.customer, drink=wish.drink)
    shop.orders[taken.number] = taken
    return taken


@app.post("/orders/{number}/ready", status_code=202)
async def ready(number: int, request: Request) -> Order:
    """Tell the customer. Pressed twice, it notifies once."""
    shop: Shop = request.app.state.shop
    done = shop.order(number)
    done.notification = await shop.client.notify(
        user=done.customer,
        push=Push("Your order is ready", "{{ drink }} waits at the counter."),
        sms=Sms("{{ drink }} waits at the counter.", when="not_clicked", after=PATIENCE),
        params={"drink": done.drink},
        key=f"shop-{os.getpid()}-{number}",
    )
    return done


@app.post("/orders/{number}/picked-up", status_code=202)
async def picked_up(number: int, request: Request) -> Order:
    """Keep the SMS from somebody who holds the cup already."""
    shop: Shop = request.app.state.shop
    gone = shop.order(number)
    if gone.notification is not None:
        await shop.client.cancel(gone.notification)
    gone.picked_up = True
    return gone


@app.exception_handler(InvalidMessage)
async def wrong(_: Request, error: InvalidMessage) -> JSONResponse:
    """Name what is wrong with the form."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(BrokerUnavailable)
async def away(_: Request, error: BrokerUnavailable) -> JSONResponse:  # noqa: ARG001 - FastAPI gives both
    """Ask for another try."""
    return JSONResponse({"detail": "try again"}, 503, {"Retry-After": "5"})


def _environment() -> Mapping[str, str] | None:
    """Return what ``knocktwice env`` prints; ``None`` if no stack runs here whose gateway answers."""
    path = Path(os.environ.get("KNOCKTWICE_HOME", HOME)) / STACK_FILE
    with suppress(OSError):
        named = dict(word.split("=", 1) for word in shlex.split(path.read_text()) if "=" in word)
        with urllib.request.urlopen(f"{named['GATEWAY']}/healthz", timeout=5):  # noqa: S310 - on this machine
            return named
    return None


def main() -> None:
    """Run the shop, and the stack unless it runs already, until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    arguments, further = parser.parse_known_args()
    stack = None if _environment() else subprocess.Popen([*KNOCKTWICE, "up", *further])
    try:
        while (environment := _environment()) is None:
            if stack is None or stack.poll() is not None:
                sys.exit("'knocktwice up' has ended; what it said stands above")
            with suppress(subprocess.TimeoutExpired):
                stack.wait(0.5)
        os.environ |= environment
        print(f"the shop is open at http://127.0.0.1:{arguments.port}", flush=True)
        uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    except KeyboardInterrupt:
        pass
    finally:
        if stack is not None:
            stack.terminate()
            stack.wait()


if __name__ == "__main__":
    main()
