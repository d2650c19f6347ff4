"""``/v1/switches``, ``/v1/pauses``, ``/v1/settings`` and ``/v1/audit``: what operators pause and change, recorded."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from knocktwice_worker.gateway.auth.access import Here, requires
from knocktwice_worker.gateway.auth.keys import Key, Scope
from knocktwice_worker.gateway.problems import Problem, documented
from knocktwice_worker.gateway.schemas.fields import Visible
from knocktwice_worker.gateway.schemas.switches import AuditPage, Paused, Resumed, SettingAnswer, SwitchList
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.notifications.store import paused
from knocktwice_worker.switches import audit, overrides, pauses
from knocktwice_worker.switches.audit import REASON_LIMIT, By

router = APIRouter(prefix="/v1", tags=["switches"])

#: Most lines of a page.
PAGE_LIMIT = 1_000
Operator = Annotated[Key, requires(Scope.ADMIN)]
Reason = Annotated[str, Visible(REASON_LIMIT, "Why; kept in the audit, so name no person.")]
Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="The pause's number.")]
Setting = Annotated[str, Path(max_length=100, description="Its environment variable, like `KNOCKTWICE_SMS_BUDGET`.")]


@router.get("/switches", response_model=SwitchList, dependencies=[requires(Scope.READ)])
def list_all(
    services: Here,
    everything: Annotated[bool, Query(alias="all", description="Pauses that are over, too.")] = False,
) -> Any:
    """List what is paused, with how many messages wait for it, and which settings are changed."""
    with reading(services) as conn:
        return {
            "pauses": [one.as_json() for one in pauses.list_all(conn, everything=everything)],
            "settings": [dataclasses.asdict(one) for one in overrides.list_all(conn)],
        }


@router.post("/pauses", response_model=Paused)
def pause(
    services: Here,
    key: Operator,
    reason: Reason,
    channel: Annotated[str | None, Visible(100, "`push`, `sms` or another channel; `all` for all of them.")] = None,
    provider: Annotated[str | None, Visible(100, "Only what this provider would carry, if no other can.")] = None,
    sender: Annotated[str | None, Visible(100, "Only messages from this sender.")] = None,
    country: Annotated[str | None, Visible(2, "Only messages to numbers of this country.")] = None,
    template: Annotated[str | None, Visible(200, "Only messages with this template.")] = None,
    category: Annotated[str | None, Visible(100, "Only messages of this category.")] = None,
    for_s: Annotated[float | None, Query(gt=0, le=31_536_000, description="It ends by itself after so long.")] = None,
    drain: Annotated[bool, Query(description="Messages that are already decided still go.")] = False,
) -> Any:
    """Let messages wait, on every worker within two seconds. Receipts, cancellations and opt-outs still end what waits."""
    narrower = {"provider": provider, "sender": sender, "country": country, "template": template, "category": category}
    scope = pauses.named(channel, **narrower)
    span = None if for_s is None else timedelta(seconds=for_s)
    with writing(services) as conn:
        scope = pauses.checked(conn, scope, services.channels)
        return {"id": pauses.pause(conn, scope, _by(key, reason), span=span, drains=drain)}


@router.post("/pauses/{number}/resume", response_model=Resumed, responses=documented("not-found"))
def resume(number: Number, services: Here, key: Operator, reason: Reason) -> Any:
    """End a pause: what waits goes, through limits, quiet hours and opt-outs as always."""
    with writing(services) as conn:
        try:
            return {"ended": pauses.resume(conn, paused.Scope(), _by(key, reason), id_=number)}
        except pauses.NotPaused as error:
            raise Problem("not-found", str(error), field="number") from None


@router.put("/settings/{name}", response_model=SettingAnswer)
def change(
    name: Setting,
    services: Here,
    key: Operator,
    value: Annotated[str, Query(max_length=2_000, description="As the variable would have it.")],
    reason: Reason,
) -> Any:
    """Change a budget, the countries, the quiet hours or a pace on every worker within two seconds, and over restarts."""
    with writing(services) as conn:
        return dataclasses.asdict(overrides.change(conn, services.settings, name, value, _by(key, reason)))


@router.delete("/settings/{name}", status_code=204)
def restore(name: Setting, services: Here, key: Operator, reason: Reason) -> None:
    """Let a changed setting be again as the workers' environment says."""
    with writing(services) as conn:
        overrides.restore(conn, services.settings, name, _by(key, reason))


@router.get("/audit", response_model=AuditPage, dependencies=[requires(Scope.ADMIN)])
def lines(
    services: Here,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
) -> Any:
    """Show what operators did: who, when, what and why; the newest first."""
    with reading(services) as conn:
        found = audit.lines(conn, limit=limit + 1, before=before)
    shown = found[:limit]
    return {
        "lines": [dataclasses.asdict(line) for line in shown],
        "next": shown[-1].id if len(found) > limit else None,
    }


def _by(key: Key, reason: str) -> By:
    return By(f"key {key.name}", reason)
