"""``/v1/trials``: what rules that are only watched would have stopped."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from knocktwice_worker.evidence import trials
from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.schemas.trials import TrialAnswer
from knocktwice_worker.gateway.transactions import reading

router = APIRouter(prefix="/v1", tags=["numbers"])

_LONGEST_S = int(trials.LONGEST.total_seconds())


@router.get("/trials", response_model=TrialAnswer, dependencies=[requires(Scope.READ)])
def tell(
    services: Here,
    since_s: Annotated[int, Query(ge=1, le=_LONGEST_S, description="How far back, in seconds.")] = 86_400,
) -> Any:
    """Tell how many messages went that stricter rules would have stopped, by rule."""
    with reading(services) as conn:
        return trials.report(conn, services.settings, services.projects, timedelta(seconds=since_s)).as_json()
