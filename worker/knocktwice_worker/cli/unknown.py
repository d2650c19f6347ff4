"""``knocktwice unknown``: lists, sends again or closes messages of which nobody can tell whether they went out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice_shared.messages import Category
from knocktwice_worker.cli import phone_options, times
from knocktwice_worker.cli.output import AsJson, clock, out, print_json, reading
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.notation.masking import mask_or_erased
from knocktwice_worker.notifications.store import unknown
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

app = typer.Typer(name="unknown", help="Messages that may or may not have gone out.", no_args_is_help=True)

Since = Annotated[str | None, typer.Option(help="Given up since then: a time like 2026-11-22T09:00+01:00, or 3h ago.")]
Until = Annotated[str | None, typer.Option(help="Given up before then.")]
Provider = Annotated[str | None, typer.Option(help="By this provider.")]
Channel = Annotated[str | None, typer.Option(help="By this channel, like sms.")]
Number = Annotated[str | None, typer.Option(help="To this number, in E.164.")]
OfCategory = Annotated[Category | None, typer.Option("--category", help="Of this category.")]
Key = Annotated[str | None, typer.Option(help="With this idempotency key.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger, so name no person.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them; needed where no filter is given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count them; change nothing.")]


@app.command("list")
def list_all(
    since: Since = None,
    until: Until = None,
    provider: Provider = None,
    channel: Channel = None,
    number: Number = None,
    category: OfCategory = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List messages of unknown outcome, one a line: id, step, when it was given up, number, by whom.

    Example: knocktwice unknown list --since 2d --provider acme
    """
    wanted, here = _wanted(since, until, provider, channel, number, category, key), _connected()
    count = 0
    # Page by page: there may be a hundred thousand.
    for page in unknown.pages(here.engine, wanted):
        for one in page:
            count += 1
            if as_json:
                print("[" if count == 1 else ",", json.dumps(_shown(one)))
            else:
                line = f"{one.notification_id} {one.step} {clock(one.ended_at)} {mask_or_erased(one.number)} "
                out.print(f"{line}{one.channel}/{one.provider}", markup=False, soft_wrap=True)
    if as_json:
        print("]" if count else "[]")
    else:
        out.print(f"{count} in all; 'knocktwice explain' tells the story of one")


@app.command()
def send(
    reason: Reason,
    since: Since = None,
    until: Until = None,
    provider: Provider = None,
    channel: Channel = None,
    number: Number = None,
    category: OfCategory = None,
    key: Key = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send messages of unknown outcome again, after a look at the provider's list if it has one.

    Without a list a person may get a second message. Messages whose plan went on, and those of erased people, are left
    alone. Receipts, opt-outs and limits hold as always.

    Example: knocktwice unknown send --since 6h --reason "outage of 3 May, the provider says nothing went out"
    """
    said, here = _said(reason), _connected()
    wanted = _some(_wanted(since, until, provider, channel, number, category, key), everything=everything)

    def reopened(conn: Connection, page: list[unknown.UnknownStep]) -> int:
        ways = {(one.channel, one.provider) for one in page}
        listable = {way for way in ways if here.channels.provider(*way).listable}
        return unknown.reopen(conn, page, reason=said, listable=listable)

    _change(here, wanted, reopened, can=_sendable, what="taken up again", dry_run=dry_run, as_json=as_json)


@app.command()
def close(
    reason: Reason,
    since: Since = None,
    until: Until = None,
    provider: Provider = None,
    channel: Channel = None,
    number: Number = None,
    category: OfCategory = None,
    key: Key = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take unknown outcomes as settled: they are listed no more, and their states stay.

    Example: knocktwice unknown close --until 30d --reason "too old to matter"
    """
    said, here = _said(reason), _connected()
    wanted = _some(_wanted(since, until, provider, channel, number, category, key), everything=everything)

    def closed(conn: Connection, page: list[unknown.UnknownStep]) -> int:
        return unknown.close(conn, page, reason=said)

    _change(here, wanted, closed, can=lambda _: True, what="closed", dry_run=dry_run, as_json=as_json)


def _change(
    here: Services,
    wanted: unknown.Wanted,
    change: Callable[[Connection, list[unknown.UnknownStep]], int],
    *,
    can: Callable[[unknown.UnknownStep], bool],
    what: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change the messages page by page, each page in a transaction, and say how many."""
    matched = changed = 0
    with progress("looking through them") as bar:
        for page in unknown.pages(here.engine, wanted):
            matched += len(page)
            bar.advance(len(page))
            if dry_run:
                changed += sum(map(can, page))
                continue
            with here.engine.begin() as conn:
                changed += change(conn, page)
    if as_json:
        print_json({"matched": matched, "changed": changed, "dry_run": dry_run})
        return
    out.print(f"{'would be ' if dry_run else ''}{what}: {changed}; left alone: {matched - changed}")


def _sendable(one: unknown.UnknownStep) -> bool:
    return one.last and one.number is not None


def _shown(one: unknown.UnknownStep) -> dict[str, Any]:
    return {
        "id": one.notification_id,
        "step": one.step,
        "channel": one.channel,
        "provider": one.provider,
        "number": mask_or_erased(one.number),
        "category": one.category,
        "key": one.key,
        "reason": one.reason,
        "ended_at": one.ended_at.isoformat(),
        "can_be_sent": _sendable(one),
    }


def _wanted(
    since: str | None,
    until: str | None,
    provider: str | None,
    channel: str | None,
    number: str | None,
    category: Category | None,
    key: str | None,
) -> unknown.Wanted:
    return unknown.Wanted(
        since=None if since is None else times.moment(since, "since"),
        until=None if until is None else times.moment(until, "until"),
        provider=provider,
        channel=channel,
        number=None if number is None else phone_options.any_of([number], "NUMBER", services().settings.phone_rules)[0],
        category=category,
        key=key,
    )


def _connected() -> Services:
    here = services()
    reading(here).close()
    return here


def _some(wanted: unknown.Wanted, *, everything: bool) -> unknown.Wanted:
    if wanted.everything and not everything:
        raise typer.BadParameter("say which: give a filter, or --all", param_hint="--all")
    return wanted


def _said(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    return reason.strip()
