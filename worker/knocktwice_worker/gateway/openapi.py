"""The OpenAPI document: FastAPI writes it, and the bodies that the contract checks are added here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from knocktwice_shared.durability import Durability
from knocktwice_worker.gateway.intake.outbox import COMMITTED, DURABILITY
from knocktwice_worker.gateway.problems import KINDS, ProblemDetails, documented

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi import APIRouter, FastAPI
    from fastapi.routing import APIRoute
    from pydantic import BaseModel

_SCHEMAS = "#/components/schemas/"
_LARGEST_INT32 = 2**31 - 1
#: The errors that every operation behind a key may answer with.
_ANYWHERE = ("unauthorized", "forbidden", "invalid-field", "too-many-requests", "internal", "unavailable")
#: The further errors of every operation that hands a message to the broker.
_WITH_BROKER = ("backlog-full", "not-confirmed", "unavailable")
#: The further errors that every operation with a body may answer with.
_WITH_BODY = ("malformed-json", "too-slow", "too-large", "unsupported-media-type")

_DURABILITY = {
    "description": "What accepted means of this request. "
    + ". ".join(f"`{level}`: {level.promise}" for level in Durability)
    + f". `{COMMITTED}`: committed in PostgreSQL.",
    "schema": {"type": "string", "enum": [*Durability, COMMITTED]},
}


#: Tag → what its operations are about, where their functions' names say only what is done.
_NOUNS = {
    "audience": "user",
    "blasts": "blast",
    "brakes": "brake",
    "callbacks": "callback",
    "inbound": "inbound_text",
    "links": "link",
    "dead letters": "dead_letter",
    "notifications": "notification",
    "opt-outs": "opt_out",
    "receipts": "receipt",
    "segments": "segment",
    "templates": "template",
}


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation: ``listTemplates`` for ``list_all`` with the tag ``templates``.

    A word alone gets what it is about; of a function with two methods the second is named.
    """
    noun = _NOUNS.get(str(route.tags[0]), "") if route.tags else ""
    said, many, _ = route.name.partition("_many")
    if route.name in ("list_all", "list_latest"):
        said = f"list_{noun}s"
    elif many:
        said = f"{said}_{noun}s"
    elif noun and "_" not in said and said not in ("notify", "messages"):
        said = f"{said}_{noun}"
    if route.methods == {"HEAD"} or (route.name == "report" and route.methods == {"GET"}):
        said = f"{said}_by_{min(route.methods).lower()}"
    first, *others = said.split("_")
    return first + "".join(word.capitalize() for word in others)


class Takes(dict[str, Any]):
    """The part of an operation that says which body it takes, for ``openapi_extra``.

    Args:
        model: describes the body. It does not check it: the contract's validator does.
        required: whether there must be one.
    """

    def __init__(self, model: type[BaseModel], *, required: bool = True) -> None:
        schema = {"$ref": _SCHEMAS + model.__name__}
        super().__init__(requestBody={"required": required, "content": {"application/json": {"schema": schema}}})
        self.model = model


def describe(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Let the application describe itself in full.

    Args:
        routers: all that it serves.
    """

    extras = [getattr(route, "openapi_extra", None) for router in routers for route in router.routes]
    bodies = {extra.model for extra in extras if isinstance(extra, Takes)}

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, servers=app.servers, routes=app.routes
    )
    models: list[type[BaseModel]] = [ProblemDetails, *sorted(bodies, key=lambda model: model.__name__)]
    wanted: list[Any] = [(model, "validation") for model in models]
    _, described = models_json_schema(wanted, ref_template=_SCHEMAS + "{model}")
    components: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    components |= described["$defs"]
    for operations in document["paths"].values():
        for operation in operations.values():
            _add_problems(operation)
    _suit_generators(document)
    return document


def _suit_generators(part: object) -> None:
    """Say what generators of clients need said, and nothing that they take at its word.

    ``"default": null`` goes: null means "not said", and every client would say it. Titles of fields go: they repeat the
    field's name, and types would be called after them (``Text1``) and not after their place (``SmsBodyText``). Whole
    numbers that may be large say so: Go and Java would take 32 bits for them.
    """
    if isinstance(part, list):
        for inner in part:
            _suit_generators(inner)
    if not isinstance(part, dict):
        return
    if "default" in part and part["default"] is None:
        del part["default"]
    if part.get("type") == "integer" and part.get("maximum", _LARGEST_INT32 + 1) > _LARGEST_INT32:
        part["format"] = "int64"
    fields = part.get("properties")
    for field in fields.values() if isinstance(fields, dict) else ():
        if isinstance(field, dict):
            field.pop("title", None)
    for inner in part.values():
        _suit_generators(inner)


def _add_problems(operation: dict[str, Any]) -> None:
    answers: dict[str, Any] = operation["responses"]
    if "202" in answers:
        answers["202"].setdefault("headers", {})[DURABILITY] = _DURABILITY
    # FastAPI's own idea of a wrong field.
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]
    if "security" not in operation:
        return
    kinds = _ANYWHERE + (_WITH_BODY if "requestBody" in operation else ()) + (_WITH_BROKER if "202" in answers else ())
    own = {str(KINDS[kind][0]) for kind in KINDS} & answers.keys()
    for status, described in documented(*kinds).items():
        if str(status) not in own:
            answers[str(status)] = described
