"""``knocktwice brake``: what the brake holds, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from knocktwice_shared.messages import Category
from knocktwice_worker.brake import brakes, watch
from knocktwice_worker.cli import times
from knocktwice_worker.cli.output import AsJson, clock, out, print_json, reading
from knocktwice_worker.notifications.store.braked import HeldFilter
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_worker.brake.brakes import Bill
    from knocktwice_worker.services import Services

app = typer.Typer(
    name="brake",
    help="Messages that are held because far more people than usual would be texted, or because of SMS pumping.",
    no_args_is_help=True,
)

#: The longest time for which a brake can be kept off.
_LONGEST = timedelta(days=365)

Number = Annotated[int | None, typer.Argument(help="The brake's number, as 'brake list' shows it.", metavar="[BRAKE]")]
Template = Annotated[str | None, typer.Option(help="Only messages with this template; '' for those without one.")]
Blast = Annotated[str | None, typer.Option(help="Only messages of the blast with this key.")]
OfCategory = Annotated[Category | None, typer.Option("--category", help="Only messages of this category.")]
Platform = Annotated[str | None, typer.Option(help="Only people with a device of this platform, like ios.")]
Version = Annotated[str | None, typer.Option("--app-version", help="Only people with this version of the app.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger, so name no person.")]
Everything = Annotated[bool, typer.Option("--all", help="Of all brakes; needed where nothing else is said.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many and what they cost; change nothing.")]


@app.command("list")
def list_all(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over and hold nothing, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the brakes that are on or still hold messages: since when, why, how many, and what these would cost.

    Example: knocktwice brake list --all
    """
    here = _connected()
    with here.engine.connect() as conn:
        found = brakes.list_all(conn, everything=everything)
        bills = {one.id: brakes.bill(conn, HeldFilter(one.id), here.channels.prices) for one in found}
    if as_json:
        print_json([one.as_json() | {"cost": bills[one.id].as_json()} for one in found])
        return
    for one in found:
        out.print(f"[bold]brake {one.id}[/] {one.state}, since {clock(one.since)}, {escape(str(one.scope))}")
        out.print(f"  {escape(one.why)}", soft_wrap=True)
        passed = f"; {one.passed} went that it would have held" if one.passed else ""
        out.print(f"  holds {bills[one.id]}{passed}", soft_wrap=True)
    if not found:
        out.print(f"no brake is on; one would hold {watch.Rules.of(here.settings).holds}")
        return
    out.print("'knocktwice brake release BRAKE' sends them, 'drop' ends them; 'explain' tells the story of one")


@app.command()
def release(
    brake: Number = None,
    template: Template = None,
    blast: Blast = None,
    category: OfCategory = None,
    platform: Platform = None,
    app_version: Version = None,
    off_for: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="How long the brake then stays off for the same people, like 2h or 7d.",
            show_default="KNOCKTWICE_BRAKE_GRACE_S",
        ),
    ] = None,
    reason: Reason = "released by an operator",
    everything: Everything = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send what is held, and take the brake off. With a filter only those messages go, and the brake stays on.

    Receipts, opt-outs, limits and quiet hours hold as always, and what is of no use any more does not go.

    Example: knocktwice brake release 3 --for 1d --reason "that release of the app reports nothing"
    """
    wanted, here = _wanted(brake, template, blast, category, platform, app_version, everything=everything), _connected()
    grace = timedelta(seconds=here.settings.brake_grace_s) if off_for is None else times.span(off_for, "for", _LONGEST)
    due = _bill(here, wanted)
    if not dry_run:
        due.messages = brakes.release(here.engine, wanted, grace=grace, reason=_said(reason))
    _tell(due, "released", dry_run=dry_run, as_json=as_json)


@app.command()
def drop(
    brake: Number = None,
    template: Template = None,
    blast: Blast = None,
    category: OfCategory = None,
    platform: Platform = None,
    app_version: Version = None,
    reason: Reason = "dropped by an operator",
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End what is held: these people get no message any more. The brake stays on for those who come after.

    Example: knocktwice brake drop 3 --blast summer-sale --reason "the push was seen, only the receipts were lost"
    """
    wanted, here = _wanted(brake, template, blast, category, platform, app_version, everything=everything), _connected()
    due, said = _bill(here, wanted), _said(reason)
    if due.messages and not yes and not dry_run:
        typer.confirm(f"Drop {due}? They cannot be brought back", abort=True, err=True)
    if not dry_run:
        due.messages = brakes.drop(here.engine, wanted, reason=said)
    _tell(due, "dropped", dry_run=dry_run, as_json=as_json)


def _tell(due: Bill, what: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(due.as_json() | {"dry_run": dry_run})
    else:
        out.print(f"{'would be ' if dry_run else ''}{what}: {due}", soft_wrap=True)


def _bill(here: Services, wanted: HeldFilter) -> Bill:
    with here.engine.connect() as conn:
        return brakes.bill(conn, wanted, here.channels.prices)


def _wanted(
    brake: int | None,
    template: str | None,
    blast: str | None,
    category: Category | None,
    platform: str | None,
    app_version: str | None,
    *,
    everything: bool,
) -> HeldFilter:
    wanted = HeldFilter(brake, template, blast, category and str(category), platform, app_version)
    if wanted == HeldFilter() and not everything:
        raise typer.BadParameter("say which: a brake's number, a filter, or --all", param_hint="[BRAKE]")
    return wanted


def _said(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    return reason.strip()


def _connected() -> Services:
    here = services()
    reading(here).close()
    return here
