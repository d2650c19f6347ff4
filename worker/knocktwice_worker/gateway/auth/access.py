"""Access to the gateway: the dependencies by which a route checks the caller and the caller's rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request, Response, Security
from fastapi.security import HTTPBearer

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks
from knocktwice_shared.test_side import MARK, is_test, real_side
from knocktwice_worker.gateway.auth.keys import CHANGES_NOTHING, TEST_SCOPES
from knocktwice_worker.gateway.intake.outbox import DURABILITY, Outbox
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from knocktwice_worker.gateway.auth.keyring import KeyRing
    from knocktwice_worker.gateway.auth.keys import Key, Scope

#: Reads the key of a request, if it has one.
BEARER = HTTPBearer(bearerFormat="kt_ID_SECRET", description="A key made by `knocktwice key create`.", auto_error=False)


def here(request: Request) -> Services:
    """Return the gateway's services."""
    services: Services = request.app.state.services
    return services


#: The dependency by which a route gets the servers.
Here = Annotated[Services, Depends(here)]


def outbox(request: Request) -> Outbox:
    """Return the way to the broker."""
    found: Outbox = request.app.state.outbox
    return found


def _outbox_of_answer(request: Request, response: Response) -> Outbox:
    """Return the way to the broker, and say in the answer how safely the broker keeps a message."""
    found = outbox(request)
    response.headers[DURABILITY] = found.durability
    return found


#: The dependency by which a route gets the outbox for messages.
Out = Annotated[Outbox, Depends(_outbox_of_answer)]


def requires(scope: Scope, *, in_projects: bool = False) -> Any:
    """Return the dependency that lets in whoever has a key for ``scope``; its value is the key.

    Args:
        in_projects: let in the keys of projects, too. The route then shows and changes only what belongs to the key's
            project, or what all projects share. Left out, only keys that see everything are let in.
    """
    return Security(_gate(scope, in_projects=in_projects), scopes=[scope])


def _gate(scope: Scope, *, in_projects: bool) -> Callable[[Request, Any], Coroutine[Any, Any, Key]]:
    async def gate(request: Request, credentials: Annotated[Any, Depends(BEARER)]) -> Key:
        given = None if credentials is None else credentials.credentials
        key = await admit(request, given, scope, in_projects=in_projects)
        refuse_unknown_parameters(request)
        return key

    return gate


async def admit(
    request: Request, given: str | None, scope: Scope, *, in_projects: bool = False, in_tests: bool = False
) -> Key:
    """Return the key that a request came with, and count the request.

    Args:
        given: what stands behind ``Bearer``.
        in_projects: let in the keys of projects, too.
        in_tests: let in test keys that are bound to no project, too.

    Raises:
        Problem: there is none that works, it lacks the scope, it is a project's, or it is used too fast.
    """
    ring: KeyRing = request.app.state.keys
    key = None if given is None else await ring.find(given)
    if key is None:
        raise Problem(
            "unauthorized",
            "send Authorization: Bearer and a key that works; 'knocktwice key create' makes one",
            headers={"WWW-Authenticate": "Bearer"},
        )
    await let_in(request, key, scope, in_projects=in_projects, in_tests=in_tests)
    return key


async def let_in(
    request: Request, key: Key, scope: Scope, *, in_projects: bool = False, in_tests: bool = False
) -> None:
    """Count the request of a key that is known to be the caller's.

    Args:
        in_projects: let in the keys of projects, too.
        in_tests: let in test keys that are bound to no project, too.

    Raises:
        Problem: it lacks the scope, it is a project's, or it is used too fast.
    """
    if key.test and scope not in TEST_SCOPES:
        raise Problem("forbidden", f"this is a test key, and {CHANGES_NOTHING}; use a real key for that")
    if not key.allows(scope):
        raise Problem("forbidden", f"this key lacks the scope {scope}; 'knocktwice key create' makes one with it")
    if key.project is not None and not in_projects and not (in_tests and key.project == MARK):
        # Whatever the request names: the answer tells nothing of what there is.
        raise Problem("forbidden", "this key is bound to a project, and this request is about the whole installation")
    await request.app.state.pace.take(key.id)


def of_project(key: Key, body: dict[str, Any]) -> dict[str, Any]:
    """Return a request's body as one of the key's project.

    Raises:
        InvalidMessage: it names another project.
    """
    if key.project is None:
        if is_test(named if isinstance(named := body.get("project"), str) else None):
            raise InvalidMessage("project", "is of tests, which are made with a test key")
        return body
    _require_own(key, body.get("project"))
    return {**body, "project": key.project}


def asked_project(key: Key, wanted: str | None) -> str | None:
    """Return the project whose things a request shows; ``None``: those of all.

    Args:
        wanted: the project that the request names.

    Raises:
        InvalidMessage: it is another one than the key's, or none.
    """
    if wanted is not None:
        checks.side(wanted) if key.test else checks.project(wanted)
    if key.project is not None:
        _require_own(key, wanted)
    return key.project or wanted


def _require_own(key: Key, wanted: object) -> None:
    """Refuse another project than the key's. A test key takes its project by either name, as the real key does."""
    own = (key.project, real_side(key.project))
    if wanted is None or wanted in own:
        return
    if own[1] is None:
        raise InvalidMessage("project", "must be left out: this test key is bound to no project")
    raise InvalidMessage("project", f"must be {own[1]}, to which this key is bound, or left out")


def bearer(request: Request) -> str | None:
    """Return what stands behind ``Bearer``; ``None`` if nothing does."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given if scheme.lower() == "bearer" and given else None


def refuse_parameters(request: Request) -> None:
    """Refuse all parameters, for a request that has none.

    Raises:
        InvalidMessage: all of them are named.
    """
    if request.scope["query_string"]:
        _refuse_parameters(request, ())


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a misspelt filter, which would show the wrong rows, and two filters that contradict each other."""
    if request.scope["query_string"]:
        _refuse_parameters(request, [str(one.alias) for one in request.scope["route"].dependant.query_params])


def _refuse_parameters(request: Request, known: Collection[str]) -> None:
    problems = []
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            told = f"is not a parameter of this request; known here: {', '.join(sorted(known)) or 'none'}"
            problems.append(InvalidMessage(name, told))
        elif name in seen:
            problems.append(InvalidMessage(name, "is given twice; leave one out"))
        elif "\ufffd" in value and not _is_utf_8(request.scope["query_string"]):
            problems.append(InvalidMessage(name, "is not UTF-8, percent-encoded"))
        seen.add(name)
    if problems:
        raise InvalidMessage.of(problems)


def _is_utf_8(query: bytes) -> bool:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True
