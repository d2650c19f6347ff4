"""Checks of the business: budget, brakes, receipts, decisions, and what is known of phone numbers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_shared.counted import many
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.brake import brakes, guard, watch
from knocktwice_worker.diagnosis.check import Finding, Level
from knocktwice_worker.lifecycle import BrakeState
from knocktwice_worker.limits import budget as limits_of_budget
from knocktwice_worker.notation import number_plans as plans
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.runtime import budget_alarms
from knocktwice_worker.switches import overrides, pauses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services


def number_plans(_: Services) -> Finding:
    """Whether the number plans are of late."""
    return number_plans_on(datetime.now(UTC).date())


def number_plans_on(today: date) -> Finding:
    """Return whether the installed number plans are young enough on a day, in words for a person."""
    release = plans.installed()
    day = plans.released(release)
    if day is not None and today - day > plans.OLD:
        finding = (
            f"phonenumbers {release} is of about {day:%B %Y}, and ranges assigned since are refused as not assigned"
        )
        return Level.WARNING, f"{finding}; upgrade it, or set KNOCKTWICE_NUMBERS=possible"
    return Level.OK, f"phonenumbers {release}"


def budget(here: Services) -> Finding:
    """How much of the day's budget is used, and of those that projects have of their own."""
    own = [_budget_of(name, one) for name, one in _own_budgets(here).items()]
    with here.engine.connect() as conn:
        limits = overrides.in_force(conn, here.settings).budget
        if not limits and not own:
            return Level.OK, "none; KNOCKTWICE_SMS_BUDGET sets one"
        now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        spent = limits_of_budget.today(conn, here.limits.limits.day(now)[1]).spent if limits else {}
    if limits:
        uses = [budget_alarms.Use("all", limits.total, limits.reserve, sum(spent.values()))]
        uses += [budget_alarms.Use(c.value, limits.categories[c], 0, spent[c]) for c in spent]
        own.insert(0, _budget_of(None, uses))
    level = Level.WARNING if any(found is not Level.OK for found, _ in own) else Level.OK
    return level, ". ".join(said for _, said in own)


def _own_budgets(here: Services) -> dict[str, list[budget_alarms.Use]]:
    """Return project → what is used of its own budget, as Redis counts it."""
    found: dict[str, list[budget_alarms.Use]] = {}
    if any(one.budget for one in here.limits.limits.projects.values()):
        for use in budget_alarms.uses(here)[1]:
            if use.project is not None:
                found.setdefault(use.project, []).append(use)
    return found


def _budget_of(project: str | None, uses: Sequence[budget_alarms.Use]) -> Finding:
    reserve = max(use.reserve for use in uses)
    full = any(use.limit and use.used >= use.limit - use.reserve for use in uses)
    told = ", ".join(
        f"{use.used}{f' of {use.limit}' if use.limit else ''} {'in all' if use.name == 'all' else use.name}"
        for use in uses
    )
    of = "" if project is None else f" of the project {project}"
    kept = f"; the last {reserve} in all are for critical" if reserve else ""
    return (Level.WARNING if full else Level.OK), f"SMS parts{of} today: {told}{kept}"


def projects(here: Services) -> Finding:
    """Whether the projects of the operators' file are used, and whether keys name others."""
    known = here.projects.known
    if not known:
        return Level.OK, "none has anything of its own; KNOCKTWICE_PROJECTS_FILE says what"
    with here.engine.connect() as conn:
        bound = set(conn.execute(text("SELECT DISTINCT project FROM api_keys WHERE project IS NOT NULL")).scalars())
    told = f"{many(len(known), 'project')} with senders, limits or budgets of their own: {', '.join(sorted(known))}"
    if nearly := sorted(
        f"{one} is near {near[0]}" for one in bound - known.keys() if (near := get_close_matches(one, known, 1, 0.8))
    ):
        return Level.WARNING, f"{told}; keys are bound to projects that the file does not name: {', '.join(nearly)}"
    return Level.OK, told


def brake(here: Services) -> Finding:
    """Whether a brake holds anything."""
    with here.engine.connect() as conn:
        found = brakes.list_all(conn)
    if not found:
        rules = watch.Rules.of(here.settings)
        pushes = f"none is on; one would hold {rules.holds}" if rules.watched else "off (KNOCKTWICE_BRAKE)"
        return Level.OK, f"{pushes}; with SMS pumping it would hold {guard.Rules.of(here.settings).holds}"
    told = []
    for one in found[:5]:
        state = "holds" if one.state is BrakeState.ON else "is off, and still holds"
        passed = f", would have held {one.passed} more" if one.passed else ""
        told.append(
            f"brake {one.id} {state} {many(one.held, 'message')}{passed} since {one.since:%Y-%m-%d %H:%M} UTC: {one.why}"
        )
    return Level.WARNING, f"{'. '.join(told)}; see 'knocktwice brake list'"


#: For how long a decision that did not wait is a warning.
_LATELY = timedelta(hours=24)


def awaited(here: Services) -> Finding:
    """Whether decisions waited for what was accepted before them."""
    with here.engine.connect() as conn:
        count, last = alarms.lately_not_awaited(conn, _LATELY)
    if not count:
        return Level.OK, "every decision of the last day waited for what had been accepted before it"
    finding = f"{many(count, 'decision')} of the last day did not wait for an accepted message, the last after {last:%H:%M} UTC"
    return (
        Level.WARNING,
        f"{finding}; receipts and cancellations are processed too late: look at backlog and dead letters",
    )


def receipts(here: Services) -> Finding:
    """Whether the apps report deliveries."""
    with here.engine.connect() as conn:
        kinds = receipt_health.examine(conn, here.settings)
    silent = [k for k in kinds if k.silent]
    if not silent:
        pushes, confirmed = sum(k.pushes for k in kinds), sum(k.confirmed for k in kinds)
        return (
            Level.OK,
            f"{confirmed} of {many(pushes, 'push', 'pushes')} of the last seven days {'was' if confirmed == 1 else 'were'} confirmed",
        )
    names = ", ".join(f"{k.platform} {k.app_version}".strip() for k in silent[:5])
    policy = here.settings.unconfirmed_policy
    finding = f"never reported as delivered: pushes to {names}; not_delivered then does: {policy}"
    return Level.WARNING, f"{finding} (KNOCKTWICE_UNCONFIRMED_POLICY); see 'knocktwice receipts health'"


def paused(here: Services) -> Finding:
    """Whether operators have paused anything."""
    with here.engine.connect() as conn:
        found = [one for one in pauses.list_all(conn) if one.ended_at is None]
    if not found:
        return Level.OK, "nothing is paused"
    told = ". ".join(f"pause {one.id}: {one}" for one in found[:5])
    return Level.WARNING, f"{told}; 'knocktwice resume' ends one, 'knocktwice switches' lists them"


def changed(here: Services) -> Finding:
    """Which settings operators have changed."""
    with here.engine.connect() as conn:
        found = overrides.list_all(conn)
    if not found:
        return Level.OK, "none; 'knocktwice set' changes budgets, countries, quiet hours and paces"
    told = ", ".join(f"{one.name}={one.value} since {one.since:%Y-%m-%d %H:%M} UTC" for one in found)
    return Level.OK, f"{told}; 'knocktwice unset' restores one"
