"""``knocktwice history``: the latest notifications, by person, number, blast, state or what a provider reported."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli import phone_options
from knocktwice_worker.cli.output import AsJson, OfProject, clock, out, print_json, reading_all
from knocktwice_worker.lifecycle import NotificationState, ProviderState
from knocktwice_worker.notation import durations
from knocktwice_worker.reporting import story
from knocktwice_worker.reporting.history import PAGE_LIMIT, Entry, Wanted, merged, page
from knocktwice_worker.services import services

#: The oldest history that can be asked for.
_LONGEST = timedelta(days=36_500)


def history(
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    phone: Annotated[str | None, typer.Option(help="Of this number and its owners.")] = None,
    project: OfProject = None,
    blast: Annotated[str | None, typer.Option(help="Of the blast with this key.")] = None,
    key: Annotated[str | None, typer.Option(help="With this idempotency key.")] = None,
    provider_id: Annotated[str | None, typer.Option(help="Whose message a provider calls so.")] = None,
    template: Annotated[str | None, typer.Option(help="With this template.")] = None,
    state: Annotated[NotificationState | None, typer.Option(help="In this state.")] = None,
    reported: Annotated[
        str | None, typer.Option(help="With a message that a provider reported so, like undelivered.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Accepted since: a day like 2026-11-01, or how long ago, like 3h.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_LIMIT, help="Entries of a page.")] = 20,
    before: Annotated[str | None, typer.Option(help="Only older ones than this id, for the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest notifications, the newest first: id, when, who, state, steps.

    \b
    knocktwice history --phone +16505550100
    knocktwice history --blast summer-sale --reported undelivered
    """
    here = services()
    rules = here.settings.phone_rules.of_anyone
    wanted = Wanted(
        user=user,
        key=key,
        state=state and str(state),
        template=template,
        since=None if since is None else _since(since),
        before=None if before is None else _id(before),
        limit=limit,
        provider_status=None if reported is None else _reported(reported),
        phone=None if phone is None else phone_options.textable(phone, "phone", rules),
        blast=blast,
        project=project,
    )
    with reading_all(here) as conns:
        if provider_id is not None:
            known = (id_ for conn in conns if (id_ := story.by_provider_id(conn, provider_id)) is not None)
            wanted = dataclasses.replace(wanted, id=next(known, UUID(int=0)))
        pages = [page(conn, wanted) for conn in conns]
        found = pages[0] if len(pages) == 1 else merged(pages, limit)
    if as_json:
        print_json({"messages": [dataclasses.asdict(one) for one in found.messages], "next": found.next})
        return
    for one in found.messages:
        out.print(f"{one.id}  {clock(one.created_at)}", soft_wrap=True)
        out.print(f"  {escape(_told(one))}", soft_wrap=True)
    if not found.messages:
        out.print("none" + (" among those looked at" if found.next else ""))
    if found.next:
        out.print(f"older ones: --before {found.next}", soft_wrap=True)


def _told(one: Entry) -> str:
    who = one.user or "a number"
    what = f", template {one.template}" if one.template else ""
    reason = f" ({one.reason})" if one.reason else ""
    test = "TEST " if one.test else ""
    return f"{test}{who}{what}: {one.state}{reason}; {', '.join(map(_step, one.steps))}"


def _step(step: Any) -> str:
    return f"{step.channel} {step.state}" + (f" ({step.provider_status})" if step.provider_status else "")


def _since(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - durations.parse(value, _LONGEST)
    except ValueError:
        raise InvalidMessage("since", "must be a day like 2026-11-01 or a time like 3h") from None


def _reported(value: str) -> str:
    known = [*map(str, ProviderState), "unknown"]
    if value not in known:
        raise InvalidMessage("reported", f"must be one of {', '.join(known)}")
    return value


def _id(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise InvalidMessage("before", "must be the id that the page before ends with") from None
