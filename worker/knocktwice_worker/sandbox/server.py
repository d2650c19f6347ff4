"""The sandbox itself: an HTTP server on 127.0.0.1, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from aiohttp import web
from yarl import URL

from knocktwice_worker.sandbox.accounts import ACCOUNT_SID, AUTH_TOKEN, SENDER, Accounts
from knocktwice_worker.sandbox.answers import STOPPING
from knocktwice_worker.sandbox.app_reports import AppReports, Report
from knocktwice_worker.sandbox.books import Books
from knocktwice_worker.sandbox.control import Control
from knocktwice_worker.sandbox.departures import Departures
from knocktwice_worker.sandbox.fcm import Fcm
from knocktwice_worker.sandbox.reachable_addresses import LOCAL
from knocktwice_worker.sandbox.twilio import Twilio
from knocktwice_worker.sandbox.twilio_account import TwilioAccount
from knocktwice_worker.sandbox.wall import people
from knocktwice_worker.sandbox.wall.routes import Wall

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType

    from knocktwice_worker.sandbox.phones import Phone
    from knocktwice_worker.sandbox.records import PostedCallback, ReceivedPush, SentText
    from knocktwice_worker.sandbox.rules import Kind, Rule
    from knocktwice_worker.sandbox.wall.application import Application

_HOST = "127.0.0.1"


class Sandbox:
    """FCM, Twilio and virtual phones. A context manager; threads may share it.

    Args:
        port: where to listen on 127.0.0.1; ``0`` takes a free port, and keeps it when started again.
        report: called with each receipt of a virtual phone whose push carries no receipt address, off the server's loop
            and one at a time, as an app's backend would call the producer library. Left out, those receipts are only
            noted.
        gateway: the gateway's public URL. Phones report to the receipt addresses of pushes there, and on this machine,
            and nowhere else; people write back there.
        application: what the page's buttons notify with; ``None``: the page only shows phones.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        report: Report | None = None,
        gateway: str | None = None,
        application: Application | None = None,
    ) -> None:
        self._port = port
        self._gateway = gateway
        self._application = application
        self._books = Books()
        self._accounts = Accounts()
        self._apps = AppReports(self._books, report, gateway)
        self._departures = Departures(self._books, self._apps)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        if self._thread is not None:
            return
        listening: Future[int] = Future()
        thread = threading.Thread(target=self._run, args=(listening,), name="knocktwice-sandbox", daemon=True)
        thread.start()
        self._port = listening.result()
        self._thread = thread

    def stop(self) -> None:
        """Hang up on everybody and stop listening; the books stay. May be started again, on the same port."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://{_HOST}:{self._port}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment variables that point a worker here; a service account's file is kept in the folder."""
        return {
            "KNOCKTWICE_FCM_URL": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._accounts.write_service_account(folder, self.url)),
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
            "KNOCKTWICE_TWILIO_FROM": SENDER,
            "KNOCKTWICE_WHATSAPP_FROM": SENDER,
            "KNOCKTWICE_TWILIO_URL": self.url,
        }

    def introduce(self) -> None:
        """Put the people of the page's story on the wall, and let the application know them.

        Raises:
            KnocktwiceError: the broker does not answer.
        """
        if self._application is not None:
            people.introduce(self._books, self._application)

    def add_phone(self, phone: Phone) -> None:
        """Describe a phone. Without a description it is silent, or as its registration's beginning says."""
        self._books.add_phone(phone)

    def tap(self, registration: str, push: str | None = None) -> bool:
        """Click a phone's push, by FCM's name; left out, the newest.

        Returns ``False`` if the phone does not show it.
        """
        newest = self._books.last_push(registration)
        return newest is not None and self._departures.click(push or newest.name)

    def rule(self, rule: Rule) -> None:
        """Answer some requests out of the ordinary."""
        self._books.add_rule(rule)

    def clear_rules(self) -> None:
        """Answer in the ordinary way again."""
        self._books.clear_rules()

    def set_ahead(self, by: timedelta) -> None:
        """Date texts as if it were so much later, for tests that have moved the database's clock."""
        self._books.set_ahead(by)

    def revoke_tokens(self) -> None:
        """Let FCM take no access token that was issued so far."""
        self._accounts.revoke_tokens()

    def pushes(self, registration: str | None = None) -> list[ReceivedPush]:
        """Return the pushes that were taken, oldest first; for one registration if given."""
        return self._books.pushes(registration)

    def texts(self, to: str | None = None) -> list[SentText]:
        """Return the SMS that exist at Twilio, whatever it answered, oldest first; for one number if given."""
        return self._books.texts(to)

    def callbacks(self) -> list[PostedCallback]:
        """Return the status callbacks, in the order in which they ended."""
        return self._books.callbacks()

    def requests(self, kind: Kind) -> int:
        """Return how many requests of a kind came in, also those that were refused."""
        return self._books.requests(kind)

    def wait_until(self, condition: Callable[[], object], *, timeout: float = 10) -> None:
        """Wait until a condition on the books holds, such as ``lambda: sandbox.texts()``.

        Raises:
            TimeoutError: it did not hold within ``timeout`` seconds.
        """
        if not self._books.wait_until(condition, timeout):
            raise TimeoutError(f"the condition did not hold within {timeout} seconds")

    def clear(self) -> None:
        """Forget messages, phones, rules and counts. What is under way is forgotten too."""
        self._books.clear()

    def _run(self, listening: Future[int]) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)

    async def _serve(self, listening: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        # A handler ends when its client gives up; the others are hardly waited for at the end.
        runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        await self._apps.open()
        await self._departures.open()
        try:
            await web.TCPSite(runner, _HOST, self._port).start()
            listening.set_result(runner.addresses[0][1])
            await self._stopping.wait()
        finally:
            await self._departures.close()
            await self._apps.close()
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_refuse_strangers])
        app[STOPPING] = self._stopping
        for part in (
            Fcm(self._books, self._accounts, self._departures.arrive),
            Twilio(self._books, self._departures.depart),
            TwilioAccount(self._books),
            Control(self._books, self.tap),
            Wall(self._books, self._departures, self._application, self._gateway),
        ):
            app.add_routes(part.routes())
        return app


@web.middleware
async def _refuse_strangers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a web page elsewhere makes a browser send: by a name bound to 127.0.0.1, or across origins."""
    origin = request.headers.get("Origin")
    if _host(f"http://{request.headers.get('Host', '')}") not in LOCAL or (
        origin is not None and _host(origin) not in LOCAL
    ):
        return web.json_response({"error": "Host: the sandbox answers to 127.0.0.1 and localhost only"}, status=403)
    return await handler(request)


def _host(url: str) -> str | None:
    try:
        return URL(url).host
    except ValueError:
        return None
