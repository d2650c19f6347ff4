"""``/v1/stats`` and ``/v1/advice``: what became of notifications, and how long an SMS should wait."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BeforeValidator

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.gateway.auth.access import Here, asked_project, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.http.request_line import WholeParts
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.fields import Project, Visible, no_number
from knocktwice_worker.gateway.schemas.figures import AdviceAnswer, StatsAnswer
from knocktwice_worker.gateway.transactions import reading
from knocktwice_worker.reporting import delay_curve, figures
from knocktwice_worker.reporting.figures import Dimension

router = APIRouter(prefix="/v1", tags=["numbers"], route_class=WholeParts)

#: The key of the request.
Reader = Annotated[Key, requires(Scope.READ, in_projects=True)]

#: Days that are told if nothing is said.
_DAYS = timedelta(days=30)

Day = Annotated[date, BeforeValidator(no_number)]


@router.get("/stats", response_model=StatsAnswer, response_model_exclude_unset=True)
def stats(
    services: Here,
    key: Reader,
    by: Annotated[Dimension, Query(description="What to tell apart.")] = Dimension.TEMPLATE,
    since: Annotated[Day | None, Query(description="First day; left out, 30 days ago.")] = None,
    until: Annotated[Day | None, Query(description="Last day, included; left out, today.")] = None,
    template: Annotated[str | None, Visible(100, "Only notifications with this template.")] = None,
    project: Project = None,
) -> Any:
    """Tell what became of the notifications that were accepted in some days, and what it cost."""
    settings = services.settings
    today = datetime.now(settings.day_zone).date()
    # A day more: the database's clock may be ahead of ours.
    last = until or today + timedelta(days=1)
    first = since or max(date.min + _DAYS, min(last, today)) - _DAYS
    if first > last:
        raise InvalidMessage("until", "is before since")
    with reading(services) as conn:
        found = figures.report(
            conn,
            by=by,
            since=first,
            until=last,
            template=template,
            project=asked_project(key, project),
            prices=services.channels.prices,
        )
    return {
        "by": by,
        "since": first,
        "until": last,
        "zone": settings.sms_day_zone,
        "as_of": found.as_of,
        "lines": [{str(by): name or None, **line.as_json()} for name, line in found.lines.items()],
        "total": found.total.as_json(),
        "silent": found.silent,
    }


@router.get("/advice/{template}", response_model=AdviceAnswer, responses=documented("too-little-history"))
def advise(
    template: Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")],
    services: Here,
    key: Reader,
    project: Project = None,
) -> Any:
    """Tell how many SMS each delay would have sent with a template, and suggest one."""
    try:
        with reading(services) as conn:
            return delay_curve.advise(conn, template, asked_project(key, project)).as_json()
    except delay_curve.TooLittleHistory as error:
        raise Problem("too-little-history", str(error)) from None
