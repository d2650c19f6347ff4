"""``/v1/blasts``: one notification to everybody in a segment."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import THROTTLE_LIMIT
from knocktwice_worker.blasts import preflight, request, schedules, standing, states
from knocktwice_worker.blasts.states import BlastState
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import Here, asked_project, of_project, requires
from knocktwice_worker.gateway.auth.keys import Key as ApiKey
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.body import JsonBody
from knocktwice_worker.gateway.http.request_line import WholeParts
from knocktwice_worker.gateway.intake.outbox import COMMITTED, DURABILITY
from knocktwice_worker.gateway.openapi import Takes
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.blasts import (
    BlastAnswer,
    BlastBody,
    BlastList,
    BlastStarted,
    BlastStatus,
    PreflightAnswer,
)
from knocktwice_worker.gateway.schemas.fields import VISIBLE, Project, Visible
from knocktwice_worker.gateway.transactions import LONG_PATIENCE_MS, reading, writing
from knocktwice_worker.services import Services
from knocktwice_worker.switches import audit
from knocktwice_worker.switches.audit import REASON_LIMIT, By

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.blasts.standing import Standing

router = APIRouter(prefix="/v1/blasts", tags=["blasts"], route_class=WholeParts)

#: The request's fields about money, which the contract does not have.
_BUDGET = ("budget_parts", "budget_cost", "expected_fallback_share")

Key = Annotated[
    str,
    Path(
        min_length=1, max_length=200, pattern=VISIBLE, description="Its key, or its id. A slash in it is written %2F."
    ),
]
#: The key of the request, with the right to read, or to start and stop blasts.
Reader = Annotated[ApiKey, requires(Scope.READ, in_projects=True)]
Starter = Annotated[ApiKey, requires(Scope.BLASTS, in_projects=True)]
Reason = Annotated[str, Visible(200, "Why; shown with the blast and kept in the audit, so name no person.")]


@router.post(
    "",
    status_code=202,
    response_model=BlastStarted,
    openapi_extra=Takes(BlastBody),
    responses=documented("over-budget"),
)
def start(services: Here, by: Starter, body: JsonBody, response: Response) -> Any:
    """Notify everybody in a segment. A key starts once: with the same one again the answer is the same, and nothing happens.

    With `budget_parts` or `budget_cost` the worst case is looked at first; what may cost more is not started.
    """
    body = of_project(by, body)
    if services.settings.cells_file is not None:
        raise InvalidMessage(
            "segment", "has people in all cells; start the blast with the library or 'knocktwice cells run'"
        )
    blast, budget = _read(body)
    with reading(services) as conn:
        known = standing.of(conn, blast) is not None
    with wording.words_of(body):
        if not known and (budget["budget_parts"] is not None or budget["budget_cost"] is not None):
            found = _examine(services, blast, budget)
            if (problem := _over(found, budget)) is not None:
                raise Problem("over-budget", problem)
        with writing(services) as conn:
            started = request.start(conn, blast, settings=services.settings)
            differs = not started.new and request.differs(conn, blast)
    response.headers["Location"] = f"/v1/blasts/{started.id}"
    response.headers[DURABILITY] = COMMITTED
    told = {"id": started.id, "key": blast.key, "duplicate": not started.new, "differs": differs}
    return {**told, "test": by.test}


@router.post(
    "/preflight",
    response_model=PreflightAnswer,
    openapi_extra=Takes(BlastBody),
)
def dry_run(services: Here, by: Reader, body: JsonBody) -> Any:
    """Tell whom a blast would reach now, and what the SMS may cost. Nobody is notified, and the key stays free."""
    body = of_project(by, body)
    blast, budget = _read(body)
    with wording.words_of(body):
        found = _examine(services, blast, budget)
    return found.as_json() | {"over_budget": _over(found, budget)}


@router.get("", response_model=BlastList)
def list_latest(
    services: Here, by: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 20, project: Project = None
) -> Any:
    """List the latest blasts, and the recurring ones with their next times, which belong to no project."""
    wanted = asked_project(by, project)
    with reading(services) as conn:
        blasts = [blast.as_json() for blast in standing.latest(conn, limit, wanted)]
        recurring = [asdict(one) for one in schedules.listed(conn)] if wanted is None else []
        return {"blasts": blasts, "recurring": recurring}


@router.get("/{key}", response_model=BlastStatus, responses=documented("not-found"))
def show(key: Key, services: Here, by: Reader) -> Any:
    """Tell where a blast stands, and what became of its notifications."""
    with reading(services) as conn:
        blast = _found(conn, key, by)
        return blast.as_json() | {"outcomes": standing.outcomes(conn, blast.id)}


@router.post(
    "/{key}/pause",
    response_model=BlastAnswer,
    responses=documented("not-found", "wrong-state"),
)
def pause(key: Key, services: Here, by: Starter, reason: Reason = "paused over HTTP") -> Any:
    """Notify nobody else for now. Who was pushed goes on, and may be texted. Repeats do no harm."""
    with writing(services) as conn:
        blast = _found(conn, key, by)
        done = states.pause(conn, blast.id, reason)
        return _moved(conn, blast, by, "pause", reason, done, BlastState.PAUSED, BlastState.RUNNING)


@router.post(
    "/{key}/resume",
    response_model=BlastAnswer,
    responses=documented("not-found", "wrong-state"),
)
def resume(key: Key, services: Here, by: Starter, reason: Reason = "resumed over HTTP") -> Any:
    """Go on with a paused blast. Repeats do no harm."""
    with writing(services) as conn:
        blast = _found(conn, key, by)
        done = states.resume(conn, blast.id)
        return _moved(conn, blast, by, "resume", reason, done, BlastState.RUNNING, BlastState.PAUSED)


@router.post(
    "/{key}/throttle",
    response_model=BlastAnswer,
    responses=documented("not-found", "wrong-state"),
)
def throttle(
    key: Key,
    services: Here,
    by: Starter,
    per_minute: Annotated[
        int, Query(ge=0, le=THROTTLE_LIMIT, description="Most people in any minute; 0: no throttle.")
    ],
    reason: Annotated[str, Visible(REASON_LIMIT, "Why; kept in the audit, so name no person.")],
) -> Any:
    """Change how many people a running or paused blast notifies in a minute. Its people stay in groups, so it has a slowest pace."""
    with writing(services) as conn:
        blast = _found(conn, key, by)
        try:
            done = states.throttle(conn, blast.id, per_minute or None)
        except states.TooSlow as error:
            raise InvalidMessage("per_minute", str(error)) from None
        if not done:
            raise Problem("wrong-state", f"the blast is not running or paused, it is {blast.state}")
        said = {"blast": blast.key, "per_minute": per_minute or "all"}
        audit.note(conn, By(f"key {by.name}", reason), "throttle blast", said)
        return _found(conn, blast.id, by).as_json()


@router.post(
    "/{key}/abort",
    response_model=BlastAnswer,
    responses=documented("not-found"),
)
def abort(key: Key, services: Here, by: Starter, reason: Reason = "aborted over HTTP") -> Any:
    """End a blast and cancel what it has not sent yet, the SMS of those who were pushed too. Also when it has finished."""
    with writing(services) as conn:
        blast = _found(conn, key, by)
        who = By(f"key {by.name}", reason)
        if states.abort(conn, blast.key, reason, blast.project):
            audit.note(conn, who, "abort blast", {"blast": blast.key})
        return _found(conn, blast.id, by).as_json()


def _read(body: dict[str, Any]) -> tuple[Blast, dict[str, Any]]:
    """Return the blast, and what is said of its cost; what is not said is ``None``."""
    budget = {name: body.get(name) for name in _BUDGET}
    parts, cost, share = (budget[name] for name in _BUDGET)
    if parts is not None and (type(parts) is not int or parts < 0):
        raise InvalidMessage("budget_parts", "must be a whole number of SMS parts, 0 or more")
    if cost is not None and (type(cost) not in (int, float) or cost < 0):
        raise InvalidMessage("budget_cost", "must be an amount of money, 0 or more")
    if share is not None and (type(share) not in (int, float) or not 0 <= share <= 1):
        raise InvalidMessage("expected_fallback_share", "must be a share from 0 to 1")
    return wording.blast({name: value for name, value in body.items() if name not in _BUDGET}), budget


def _examine(services: Services, blast: Blast, budget: dict[str, Any]) -> preflight.Preflight:
    with reading(services, LONG_PATIENCE_MS) as conn:
        share = budget["expected_fallback_share"]
        return preflight.examine(conn, blast, services.settings, services.limits.limits, services.channels, share=share)


def _over(found: preflight.Preflight, budget: dict[str, Any]) -> str | None:
    """Return why the budget does not allow this; ``None`` if it does."""
    try:
        found.require(parts=budget["budget_parts"], cost=budget["budget_cost"])
    except preflight.OverBudget as error:
        return str(error)
    return None


def _moved(
    conn: Connection,
    blast: Standing,
    by: ApiKey,
    verb: str,
    reason: str,
    done: bool,
    wanted: BlastState,
    needed: BlastState,
) -> dict[str, Any]:
    """Return the blast after it was steered, and write down who did it; refuse what its state does not allow."""
    who = By(f"key {by.name}", reason)
    if done:
        audit.note(conn, who, f"{verb} blast", {"blast": blast.key})
    elif blast.state is not wanted:
        raise Problem("wrong-state", f"the blast is not {needed}, it is {blast.state}")
    return _found(conn, blast.id, by).as_json()


def _found(conn: Connection, key: str, by: ApiKey) -> Standing:
    blast = standing.find(conn, key, by.project)
    if blast is None:
        raise Problem("not-found", "no such blast; GET /v1/blasts lists the latest", field="key")
    return blast
