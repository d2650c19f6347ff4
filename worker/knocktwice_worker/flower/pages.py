"""The pages of the tab: Flower's handlers, whose queries run in threads with a short time-out."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import structlog
from flower.views import BaseHandler
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from tornado import web

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.names import ROUTES, Queue
from knocktwice_worker.flower import figures, finding, lanes, listings, steering
from knocktwice_worker.flower.hurried import services
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.switches.audit import By

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

log = structlog.get_logger(__name__)

#: The first pages of the menu; the lists follow.
_FIRST = (("notifications", "Now"), ("notifications-find", "History"), ("notifications-blasts", "Blasts"))
#: The longest query of a page, in milliseconds.
_PATIENCE_MS = 2_000
#: A page asks several questions; it is given up after so many times its longest query.
_PAGE = 2
#: Apart from Flower's own threads, so that a database that hangs does not hold up its other pages.
_POOL = ThreadPoolExecutor(8, thread_name_prefix="notifications")
#: The longest look at what a blast would do, which counts everybody whom it is for.
_LONG_PATIENCE_MS = 20_000


class Page(BaseHandler):  # type: ignore[misc] # Flower has no types
    """A page of the tab."""

    async def asked(
        self, question: Callable[[Connection], Any], *, writes: bool = False, patience_ms: int = _PATIENCE_MS
    ) -> Any:
        """Ask the database in a thread, and return the answer.

        Args:
            writes: it changes something.
            patience_ms: the longest query.

        Raises:
            HTTPError: it does not answer in time.
        """

        def ask() -> Any:
            with services().engine.begin() as conn:
                conn.execute(text(f"SET LOCAL statement_timeout = {patience_ms}"))
                if not writes:
                    conn.execute(text("SET TRANSACTION READ ONLY"))
                return question(conn)

        # A server that hangs does not end its queries itself, and may never close the connection.
        asked = self.application.io_loop.run_in_executor(_POOL, ask)
        try:
            return await asyncio.wait_for(asked, _PAGE * patience_ms / 1000)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("a page of the tab has no answer", error=type(error).__name__)
            raise web.HTTPError(503, "the database does not answer in time; 'knocktwice doctor' says more") from None

    def show(self, template: str, **values: Any) -> None:
        """Answer with a page. Nothing of it may be kept by a browser or a proxy."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'; form-action 'self'")
        why = self._why_not()
        self.render(template, acts=why is None, why_not=why, q=self.given("q"), menu=self._menu(), **values)

    def _menu(self) -> list[tuple[str, str]]:
        """Return the addresses and the words of the menu."""
        before = [(self.reverse_url(name), title) for name, title in _FIRST]
        lists = [
            (self.reverse_url("notifications-listing", name), title) for name, (title, _) in listings.PAGES.items()
        ]
        return [*before, *lists, (self.reverse_url("notifications-switches"), "Switches")]

    def given(self, name: str) -> str:
        """Return what was typed; empty: nothing.

        The templates escape it, so it is not escaped here, as Flower would.
        """
        return str(self.get_argument(name, "", escape=False))

    def by(self) -> By:
        """Return who asks for an action, and why.

        Raises:
            HTTPError: they may not act here.
            InvalidMessage: no reason is given.
        """
        if (why := self._why_not()) is not None:
            raise web.HTTPError(403, f"Nothing was done. {why}")
        return By(f"Flower: {self._name() or 'not logged in'}", self.given("reason"))

    def _why_not(self) -> str | None:
        """Return why whoever looks may not act, and what helps; ``None``: they may."""
        settings = services().settings
        if not settings.flower_operators:
            allowed = settings.flower_actions
            return None if allowed else "KNOCKTWICE_FLOWER_OPERATORS names those who may act here, and none is named."
        name = self._name()
        if name is None:
            return "Nobody has logged in (FLOWER_BASIC_AUTH or Flower's OAuth), so nobody is an operator."
        return None if name in settings.flower_operators else f"{name} is not among KNOCKTWICE_FLOWER_OPERATORS."

    def _name(self) -> str | None:
        """Return who has logged in, by Flower's OAuth or by the name of a password; ``None``: nobody need log in."""
        if isinstance(self.current_user, str):
            return self.current_user
        if not self.application.options.basic_auth:
            return None
        _, _, credentials = self.request.headers["Authorization"].partition(" ")
        return b64decode(credentials).decode().partition(":")[0]

    def check_xsrf_cookie(self) -> None:
        """Refuse forms of other sites. Flower itself asks for its token only with OAuth; our actions always do."""
        super().check_xsrf_cookie()
        web.RequestHandler.check_xsrf_cookie(self)


class Now(Page):
    """The first page: the present state."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page."""
        self.show("now.html", **await self.asked(lambda conn: figures.now(conn, services())))


class Find(Page):
    """One person, number, key, blast or message."""

    @web.authenticated
    async def get(self) -> None:
        """Show what a word may stand for: a notification at once, else a page of the history."""
        word, before = self.given("q").strip(), self.given("before")
        found = await self.asked(lambda conn: finding.find(conn, word, before, services().settings.phone_rules))
        if found.one is not None and not before:
            self.redirect(self.reverse_url("notifications-one", found.one))
            return
        self.show("find.html", found=found, before=before)


class One(Page):
    """One notification: its steps on one time axis, and what was decided."""

    @web.authenticated
    async def get(self, id_: str) -> None:
        """Show the page, with masked numbers."""
        drawn = await self.asked(lambda conn: lanes.draw(conn, id_))
        if drawn is None:
            raise web.HTTPError(404, "no such notification; one that was accepted a moment ago may not be written yet")
        self.show("one.html", drawn=drawn, numbers=None, problem=None)

    @web.authenticated
    async def post(self, id_: str) -> None:
        """Show the numbers; who looked, and why, is written down."""
        try:
            by, problem = self.by(), None
        except InvalidMessage as error:
            by, problem = None, str(error)
        numbers = None if by is None else await self.asked(lambda conn: steering.unmask(conn, id_, by), writes=True)
        drawn = await self.asked(lambda conn: lanes.draw(conn, id_))
        if drawn is None:
            raise web.HTTPError(404, "no such notification")
        self.show("one.html", drawn=drawn, numbers=numbers, problem=problem)


class Blasts(Page):
    """The latest blasts."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page."""
        await self._show(None)

    @web.authenticated
    async def post(self) -> None:
        """Start, pause, resume, throttle or abort a blast; before it costs money, show what it would do."""
        given = {name: self.given(name) for name in steering.BLAST_FIELDS}
        problem = question = None
        try:
            by = self.by()
            if given["verb"] in steering.LOOKS:
                question = await self.asked(
                    lambda conn: steering.look(conn, services(), given), patience_ms=_LONG_PATIENCE_MS
                )
            else:
                problem = await self.asked(lambda conn: steering.blast(conn, services(), given, by), writes=True)
        except KnocktwiceError as error:
            problem = str(error)
        await self._show(problem, question)

    async def _show(self, problem: str | None, question: steering.Question | None = None) -> None:
        self.show("blasts.html", **await self.asked(figures.blasts), problem=problem, question=question)


class Listed(Page):
    """A page that is a list: see :mod:`listings`."""

    @web.authenticated
    async def get(self, name: str) -> None:
        """Show the page, or that of one template."""
        wanted = self.given("template")
        if name == "content" and wanted:
            self.show(
                "listing.html",
                listing=await self.asked(lambda conn: listings.template(conn, wanted)),
                problem=None,
                done=None,
            )
            return
        await self._show(name, None, None)

    @web.authenticated
    async def post(self, name: str) -> None:
        """Do what a button says."""
        verb, about = self.given("verb"), self.given("id")
        problem = done = None
        try:
            by = self.by()
            done = await self.asked(lambda conn: steering.mend(conn, services(), name, verb, about, by), writes=True)
        except KnocktwiceError as error:
            problem = str(error)
        await self._show(name, problem, done)

    async def _show(self, name: str, problem: str | None, done: str | None) -> None:
        _, read = listings.PAGES[name]
        listing = await self.asked(lambda conn: read(conn, services()))
        self.show("listing.html", listing=listing, problem=problem, done=done)


class Parked(Listed):
    """The parked messages, which can be searched.

    A button keeps the search: its form goes to the page's own address.
    """

    async def _show(self, name: str, problem: str | None, done: str | None) -> None:  # noqa: ARG002 - it shows one page
        given = {
            field: self.given(field).strip() for field in ("task", "queue", "error", "user", "since", "until", "after")
        }
        try:
            wanted, after = finding.parked(given)
        except InvalidMessage as error:
            wanted, after, problem = dead_letters.EVERY, 0, problem or str(error)
        listing = await self.asked(lambda conn: listings.parked(conn, services(), wanted, after))
        search = urlencode({field: said for field, said in given.items() if said and field != "after"})
        choices = {"tasks": list(ROUTES), "queues": list(Queue)}
        self.show("parked.html", listing=listing, problem=problem, done=done, given=given, search=search, **choices)


class Switches(Page):
    """The page of switches: pauses, changed settings, the audit, and alarms that need an operator."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page."""
        await self._show(None)

    @web.authenticated
    async def post(self) -> None:
        """Set or end a pause."""
        given = {name: self.given(name) for name in steering.FIELDS}
        try:
            by = self.by()
            await self.asked(lambda conn: steering.switch(conn, given, by, services().channels), writes=True)
        except KnocktwiceError as error:
            await self._show(str(error))
            return
        self.redirect(self.reverse_url("notifications-switches"))

    async def _show(self, problem: str | None) -> None:
        standing = await self.asked(lambda conn: figures.standing(conn, services()))
        self.show("switches.html", problem=problem, **standing)


class Style(Page):
    """The few rules that Flower's own styles lack."""

    def get(self) -> None:
        """Send them."""
        self.set_header("Content-Type", "text/css")
        self.finish((Path(__file__).parent / "templates" / "style.css").read_text())
