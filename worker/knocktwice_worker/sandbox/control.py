"""The sandbox over HTTP, for other processes and languages: ``/sandbox/…``, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError

from knocktwice_worker.sandbox.answers import json_response, read_json
from knocktwice_worker.sandbox.phones import PHONE
from knocktwice_worker.sandbox.rules import RULE

if TYPE_CHECKING:
    from knocktwice_worker.sandbox.books import Books

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Control:
    """The endpoints. ``tap`` clicks a phone's push, the newest if none is named, and returns whether it was shown."""

    def __init__(self, books: Books, tap: Callable[[str, str | None], bool]) -> None:
        self._books = books
        self._tap_phone = tap

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        phone = "/sandbox/phones/{registration}"
        return [
            web.get("/sandbox/pushes", checked(self._pushes)),
            web.get("/sandbox/texts", checked(self._texts)),
            web.get("/sandbox/callbacks", checked(self._callbacks)),
            web.get("/sandbox/phones", checked(self._phones)),
            web.put(phone, checked(self._put_phone)),
            web.post(f"{phone}/tap", checked(self._tap)),
            web.post("/sandbox/rules", checked(self._add_rule)),
            web.delete("/sandbox/rules", checked(self._clear_rules)),
            web.delete("/sandbox", checked(self._clear)),
        ]

    async def _pushes(self, request: web.Request) -> web.Response:
        return _written({"pushes": [dataclasses.asdict(p) for p in self._books.pushes(_only(request, "registration"))]})

    async def _texts(self, request: web.Request) -> web.Response:
        return _written({"texts": [dataclasses.asdict(t) for t in self._books.texts(_only(request, "to"))]})

    async def _callbacks(self, request: web.Request) -> web.Response:
        _only(request)
        return _written({"callbacks": [dataclasses.asdict(c) for c in self._books.callbacks()]})

    async def _phones(self, request: web.Request) -> web.Response:
        _only(request)
        return json_response({"phones": [PHONE.dump_python(p, mode="json") for p in self._books.phones()]})

    async def _put_phone(self, request: web.Request) -> web.Response:
        fields = await read_json(request)
        registration = request.match_info["registration"]
        if fields.get("registration", registration) != registration:
            raise ValueError("registration: differs from the one in the address")
        phone = PHONE.validate_python({**fields, "registration": registration})
        self._books.add_phone(phone)
        return json_response(PHONE.dump_python(phone, mode="json"))

    async def _tap(self, request: web.Request) -> web.Response:
        fields = await read_json(request) if request.can_read_body else {}
        if not self._tap_phone(request.match_info["registration"], fields.get("push")):
            return json_response({"error": "registration: this phone shows no push"}, 404)
        return web.Response(status=204)

    async def _add_rule(self, request: web.Request) -> web.Response:
        # Through JSON, where a list may stand for a tuple.
        rule = RULE.validate_json(json.dumps(await read_json(request)))
        self._books.add_rule(rule)
        return json_response(RULE.dump_python(rule, mode="json"), 201)

    async def _clear_rules(self, request: web.Request) -> web.Response:
        _only(request)
        self._books.clear_rules()
        return web.Response(status=204)

    async def _clear(self, request: web.Request) -> web.Response:
        keep = _only(request, "keep")
        if keep not in (None, "phones"):
            raise ValueError("keep: must be phones")
        self._books.clear(phones=keep is None)
        return web.Response(status=204)


def checked(handler: Handler) -> Handler:
    """Answer 400, naming the field, to what is wrong."""

    async def checked(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(step) for step in first["loc"])
            told = f"{field}: {first['msg']}" if field else str(first["msg"]).removeprefix("Value error, ")
            return json_response({"error": told}, 400)
        except json.JSONDecodeError:
            return json_response({"error": "body: must be JSON"}, 400)
        except ValueError as error:
            told = str(error)
            return json_response({"error": told if ": " in told else f"body: {told}"}, 400)

    return checked


def _only(request: web.Request, name: str | None = None) -> str | None:
    """Return the query's one parameter; any other is a mistake."""
    if unknown := sorted(set(request.query) - {name}):
        raise ValueError(f"{unknown[0]}: is not a parameter here")
    return None if name is None else request.query.get(name)


def _written(value: object) -> web.Response:
    def plain(item: Any) -> Any:
        if isinstance(item, datetime):
            return item.isoformat()
        raise TypeError(f"{type(item).__name__} has no JSON")

    return web.Response(text=json.dumps(value, default=plain), content_type="application/json")
