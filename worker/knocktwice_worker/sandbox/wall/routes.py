"""Serves the wall: the page, a stream of what changes on it, and what its buttons do."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any

from aiohttp import web

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.sandbox.answers import STOPPING, json_response, read_json
from knocktwice_worker.sandbox.control import checked
from knocktwice_worker.sandbox.records import Webhook
from knocktwice_worker.sandbox.wall import people, view
from knocktwice_worker.sandbox.wall.application import DRAFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.sandbox.books import Books
    from knocktwice_worker.sandbox.departures import Departures
    from knocktwice_worker.sandbox.wall.application import Application

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: https:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
#: Path → file and type.
_FILES = {
    "/": ("wall.html", "text/html"),
    "/wall.css": ("wall.css", "text/css"),
    "/wall.js": ("wall.js", "text/javascript"),
}
#: Seconds between two looks at the books for a stream, and between two signs of life.
_LOOK_S, _ALIVE_S = 0.1, 10.0
#: The longest text that somebody writes back, as carriers limit it.
_REPLY_LIMIT = 1600
_NO_APPLICATION = "there is no application behind this sandbox; start it by 'knocktwice up'"


class Wall:
    """The routes.

    Args:
        books: what the page shows.
        departures: lets phones come online and people write back.
        application: calls the producer library; ``None``: phones and their messages are all there is.
        reply_to: the gateway's address for texts that people write; ``None``: they lead nowhere.
    """

    def __init__(
        self,
        books: Books,
        departures: Departures,
        application: Application | None,
        reply_to: str | None,
    ) -> None:
        self._books = books
        self._departures = departures
        self._application = application
        self._reply_to = reply_to

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        phone = "/sandbox/phones/{registration}"
        return [
            *(web.get(path, self._file) for path in _FILES),
            web.get("/sandbox/stream", self._stream),
            web.post("/sandbox/people", checked(self._add_person)),
            web.post("/sandbox/story", checked(self._play_story)),
            web.post(f"{phone}/dismiss", checked(self._dismiss)),
            web.post(f"{phone}/settings", checked(self._settings)),
            web.post(f"{phone}/reply", checked(self._reply)),
            web.post("/sandbox/notifications", checked(self._notify)),
            web.get("/sandbox/notifications/{id}", checked(self._story)),
            web.post("/sandbox/notifications/{id}/cancel", checked(self._cancel)),
            web.post("/sandbox/clock", checked(self._move_clock)),
            web.post("/sandbox/webhooks", checked(self._webhook)),
        ]

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = _FILES[request.path]
        content = resources.files(__package__).joinpath("static", name).read_text()
        return web.Response(text=content, content_type=kind, headers=_HEADERS)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send what the page shows, and from then on what changes (server-sent events)."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        sent: dict[str, str] = {}
        version, quiet_since = -1, asyncio.get_running_loop().time()
        stopping = request.app[STOPPING]
        while not stopping.is_set():
            now = asyncio.get_running_loop().time()
            if version != self._books.version:
                version, quiet_since = self._books.version, now
                await response.write(_event(self._news(sent)))
            elif now - quiet_since > _ALIVE_S:
                quiet_since = now
                await response.write(b": alive\n\n")
            await asyncio.sleep(_LOOK_S)
        return response

    def _news(self, sent: dict[str, str]) -> dict[str, Any]:
        """Return what differs from what was sent before, and note it as sent."""
        phones = {id_: json.dumps(phone) for id_, phone in view.phones(self._books).items()}
        changed = [json.loads(text) for id_, text in phones.items() if sent.get(id_) != text]
        gone = [id_ for id_ in sent if id_ not in phones]
        sent.clear()
        sent.update(phones)
        application = self._application
        return {
            "phones": changed,
            "gone": gone,
            **view.surroundings(self._books),
            "application": application is not None,
            "gateway": application and application.gateway,
            "clock": application is not None and application.clock is not None,
            "ahead_s": self._books.ahead.total_seconds(),
        }

    async def _add_person(self, request: web.Request) -> web.Response:
        fields = await read_json(request)
        phone = people.phone(
            self._books,
            _text(fields, "name", 60),
            number=_text(fields, "number", 40) if fields.get("number") else None,
            taps=fields.get("habit") == "clicks",
            notifications=bool(fields.get("notifications", True)),
        )
        self._books.add_phone(phone)
        await self._call(lambda application: application.register(phone))
        return json_response({"registration": phone.registration, "user": phone.user, "number": phone.number}, 201)

    async def _play_story(self, _request: web.Request) -> web.Response:
        ids = await self._call(lambda application: people.tell_story(self._books, application))
        return json_response({"ids": ids}, 202)

    async def _dismiss(self, request: web.Request) -> web.Response:
        fields = await read_json(request)
        if not self._books.dismiss(_text(fields, "push", 300)):
            return json_response({"error": "push: the screen does not show it any more"}, 404)
        return web.Response(status=204)

    async def _settings(self, request: web.Request) -> web.Response:
        """Change what the owner can change on a phone; the app reports it as real apps do."""
        fields = await read_json(request)
        known = {"notifications", "offline", "installed", "number"}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"{unknown[0]}: is no setting; there are {', '.join(sorted(known))}")
        before = self._books.phone(request.match_info["registration"])
        after = dataclasses.replace(
            before,
            notifications_enabled=bool(fields.get("notifications", before.notifications_enabled)),
            offline=bool(fields.get("offline", before.offline)),
            registered=bool(fields.get("installed", before.registered)),
            number=fields.get("number", before.number),
        )
        self._books.add_phone(after)
        if after.registered and not before.registered:
            await self._call(lambda application: application.register(after))
        elif after.notifications_enabled != before.notifications_enabled:
            await self._call(lambda application: application.report_permission(after))
        if after.number != before.number:
            await self._call(lambda application: application.change_number(after))
        if before.offline and not after.offline:
            self._departures.come_online(after.registration)
        return web.Response(status=204)

    async def _reply(self, request: web.Request) -> web.Response:
        fields = await read_json(request)
        phone = self._books.phone(request.match_info["registration"])
        if phone.number is None:
            raise ValueError("registration: this phone has no number to write from")
        body = _text(fields, "text", _REPLY_LIMIT)
        await self._departures.write_back(phone.number, body, self._reply_to)
        return web.Response(status=204)

    async def _notify(self, request: web.Request) -> web.Response:
        draft = DRAFT.validate_python(await read_json(request))
        return json_response({"id": await self._call(lambda application: application.notify(draft))}, 202)

    async def _story(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        told = await self._call(lambda application: application.story(id_))
        return json_response({"story": told})

    async def _cancel(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        await self._call(lambda application: application.cancel(id_))
        return web.Response(status=204)

    async def _move_clock(self, request: web.Request) -> web.Response:
        fields = await read_json(request)
        application = self._application
        if application is None or application.clock is None:
            raise ValueError("clock: it moves only under 'knocktwice up' with its own database")
        clock, moved = application.clock, True
        if fields.get("to") == "due":
            moved = await asyncio.to_thread(clock.advance_to_due)
        else:
            await asyncio.to_thread(clock.advance, timedelta(seconds=_seconds(fields, "advance_s")))
        self._books.set_ahead(await asyncio.to_thread(clock.ahead))
        return json_response({"moved": moved, "ahead_s": self._books.ahead.total_seconds()})

    async def _webhook(self, request: web.Request) -> web.Response:
        """Take a webhook in the application's place, and show it."""
        body = await request.text()
        told = json.loads(body)
        event = str(told.get("type", "")) if isinstance(told, dict) else ""
        id_ = request.headers.get("webhook-id", "")
        self._books.add_webhook(Webhook(id_, event, body, datetime.now(UTC)))
        return web.Response(status=204)

    async def _call(self, work: Callable[[Application], Any]) -> Any:
        """Let the application work off the loop, and refuse with its own words.

        Raises:
            ValueError: there is no application, or it refuses.
        """
        application = self._application
        if application is None:
            raise ValueError(f"application: {_NO_APPLICATION}")
        try:
            return await asyncio.to_thread(work, application)
        except KnocktwiceError as error:
            raise ValueError(str(error)) from error


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _text(fields: dict[str, Any], name: str, most: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise ValueError(f"{name}: must be a text of 1 to {most} characters")
    return value.strip()


def _seconds(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 31 * 86_400:
        raise ValueError(f"{name}: must be seconds, more than 0 and at most 31 days")
    return value
