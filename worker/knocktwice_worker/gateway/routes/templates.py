"""``/v1/templates``: what notifications say, in every language."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import locales, template_store
from knocktwice_worker.content.links.short_links import example
from knocktwice_worker.content.preview import for_user, preview
from knocktwice_worker.declarations import files
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.body import JsonBody
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.saved import Changed
from knocktwice_worker.gateway.schemas.templates import (
    PreviewAnswer,
    PreviewBody,
    TemplateAnswer,
    TemplateBody,
    TemplateList,
)
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.services import Services

#: As long as the locale of a device or a recipient may be.
LOCALE_LIMIT = 64

router = APIRouter(prefix="/v1/templates", tags=["templates"])

Name = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


@router.get("", response_model=TemplateList, dependencies=[requires(Scope.READ, in_projects=True)])
def list_all(services: Here) -> Any:
    """List the templates."""
    with reading(services) as conn:
        return {"templates": [listed._asdict() for listed in template_store.names(conn)]}


@router.get(
    "/{name}",
    response_model=TemplateAnswer,
    dependencies=[requires(Scope.READ, in_projects=True)],
    responses=documented("not-found"),
)
def show(name: Name, services: Here) -> Any:
    """Return a template as `PUT` takes it, with its version and the parameters that it needs."""
    stored = _stored(services, name)
    definition = stored.definition
    return {**stored._asdict(), "definition": definition.as_json(), "parameters": definition.parameters}


@router.put(
    "/{name}", response_model=Changed, openapi_extra=Takes(TemplateBody), dependencies=[requires(Scope.TEMPLATES)]
)
def put(name: Name, services: Here, body: JsonBody) -> Any:
    """Save a template, in place of any of that name. What was accepted with the old one keeps it."""
    return save(services, "templates", name, body)


@router.delete("/{name}", status_code=204, dependencies=[requires(Scope.TEMPLATES)], responses=documented("not-found"))
def delete(name: Name, services: Here) -> None:
    """Delete a template. What was accepted with it goes on; whoever names it from now on is not notified."""
    with writing(services) as conn:
        if not template_store.delete(conn, name):
            raise _unknown(name)


@router.post(
    "/{name}/preview",
    response_model=PreviewAnswer,
    response_model_exclude_unset=True,
    openapi_extra=Takes(PreviewBody),
    dependencies=[requires(Scope.READ, in_projects=True)],
    responses=documented("not-found"),
)
def show_preview(name: Name, services: Here, body: JsonBody) -> Any:
    """Fill a template in, for a `user` or for nobody in particular, and tell what that costs: bytes and SMS parts."""
    wording.refuse_unknown(body, ("params", "locale", "user"))
    params, locale, user = body.get("params") or {}, body.get("locale"), body.get("user")
    if isinstance(params, list):
        params = {str(place): value for place, value in enumerate(params, 1)}
    if not isinstance(params, dict):
        raise InvalidMessage("params", "must be an object or a list")
    if user is not None:
        user = checks.text(user, "user", 200)
    stored = _stored(services, name)
    chosen = None if locale is None else _locale(locale)
    if user is not None:
        with reading(services) as conn:
            params, chosen = for_user(conn, stored.definition, user, params, chosen)
    links = example(services.settings.link_address)
    return preview(stored.definition, params, chosen, links, wording_of=wording_of).as_json()


def save(services: Services, kind: str, name: str, body: dict[str, Any]) -> dict[str, str]:
    """Store a declaration, as ``knocktwice apply`` would, and return what became of it.

    Raises:
        InvalidMessage: a field is wrong; it is named as the body has it.
    """
    known = next(k for k in files.KINDS if k.key == kind)
    try:
        value = known.check(name, body)
    except InvalidMessage as error:
        raise error.renamed(lambda field: field.removeprefix(name).lstrip(".") or "body") from None
    with writing(services) as conn:
        (change,) = files.apply(conn, {kind: {name: value}})
    return {"name": name, "change": str(change.verb)}


def _stored(services: Services, name: str) -> template_store.Stored:
    with reading(services) as conn:
        stored = template_store.get(conn, name)
    if stored is None:
        raise _unknown(name)
    return stored


def _unknown(name: str) -> Problem:
    return Problem("not-found", f"no template {name!r}; GET /v1/templates lists those there are", field="name")


def _locale(value: object) -> str:
    if isinstance(value, str) and len(value) > LOCALE_LIMIT:
        raise InvalidMessage("locale", f"must have at most {LOCALE_LIMIT} characters")
    try:
        return locales.canonical(value if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidMessage("locale", str(error)) from None
