"""``knocktwice blast``: one notification to everybody in a segment. Made for people and for cron."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from knocktwice_worker.blasts import schedules, standing, states
from knocktwice_worker.cli import blast_progress
from knocktwice_worker.cli.blast_start import start
from knocktwice_worker.cli.output import AsJson, OfProject, clock, fail, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.reporting import figures, rollups
from knocktwice_worker.reporting.outcome_figures import Figures
from knocktwice_worker.services import services
from knocktwice_worker.switches import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from sqlalchemy import Connection

    from knocktwice_worker.blasts.standing import Standing

app = typer.Typer(name="blast", help="One notification to everybody in a segment.", no_args_is_help=True)
app.command()(start)

Which = Annotated[str, typer.Argument(metavar="KEY", help="The blast's key, or its id.")]
Why = Annotated[str, typer.Option(help="Shown by status and kept in the audit, so name no person.")]


@app.command()
def status(
    blast: Which,
    watch: Annotated[bool, typer.Option("--watch", help="Until it has ended. Exits 1 if it is aborted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where a blast stands, and what became of its notifications. Exits 1 if it is not known.

    Example: knocktwice blast status tea-week-47 --watch
    """
    if watch:
        blast_progress.watch(blast)
    with reading(services()) as conn:
        row = blast_progress.find(conn, blast)
        told = row.as_json() | {"outcomes": standing.outcomes(conn, row.id)}
    if as_json:
        print_json(told)
        return
    for name in ("key", "id", "project", "segment", "template", "schedule", "state", "reason", "throttle_per_min"):
        if told[name] is not None:
            out.print(f"{name.replace('_', ' '):17}{told[name]}", markup=False, soft_wrap=True)
    for name in ("created_at", "finished_at"):
        if told[name]:
            out.print(f"{name.removesuffix('_at'):17}{clock(told[name])}")
    taken = "in the segment" if told["expanded_at"] else "taken from the segment so far"
    out.print(f"{'people':17}{told['sent']} of {told['total']} {taken} were notified")
    for state, n in sorted(told["outcomes"].items()):
        out.print(f"  {state:15}{n}")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="How many of the latest.", min=1)] = 20,
    project: OfProject = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the latest blasts, and the recurring ones with their next times.

    Example: knocktwice blast list --limit 5
    """
    with reading(services()) as conn:
        rows = [row.as_json() for row in standing.latest(conn, limit, project)]
        # Recurring blasts belong to no project.
        recurring = [asdict(one) for one in schedules.listed(conn)] if project is None else []
    if as_json:
        print_json({"blasts": rows, "recurring": recurring})
        return
    table = Table("key", "segment", "template", "state", "notified", "started")
    for told in rows:
        notified = f"{told['sent']} of {told['total']}"
        state = told["state"] + (f" ({told['reason']})" if told["reason"] else "")
        table.add_row(told["key"], told["segment"], told["template"], state, notified, clock(told["created_at"]))
    print_table(table, as_csv=as_csv, empty="no blast was started yet; 'knocktwice blast start' starts one")
    if recurring and not as_csv:
        table = Table("recurring", "schedule", "next", "last", "what became of it")
        for schedule in recurring:
            when = f"{schedule['definition']['schedule']} {schedule['definition']['time_zone']}"
            table.add_row(
                schedule["name"], when, clock(schedule["next_at"]), clock(schedule["last_at"]), schedule["outcome"]
            )
        print_table(table)


@app.command()
def pause(blast: Which, reason: Why = "paused by hand") -> None:
    """Notify nobody else for now. Who was pushed goes on, and may be texted. Exits 1 if it is not running.

    Example: knocktwice blast pause tea-week-47 --reason "wrong price in the text"
    """
    row, done = _steered(blast, "pause", reason, lambda conn, row: states.pause(conn, row.id, reason))
    _say(row, done, "paused", "running")


@app.command()
def resume(blast: Which, reason: Why = "resumed by hand") -> None:
    """Go on with a paused blast. Exits 1 if it is not paused.

    Example: knocktwice blast resume tea-week-47 --reason "the price is right now"
    """
    row, done = _steered(blast, "resume", reason, lambda conn, row: states.resume(conn, row.id))
    _say(row, done, "resumed", "paused")


@app.command()
def throttle(
    blast: Which,
    per_minute: Annotated[int, typer.Argument(help="Most people in any minute; 0: no throttle.", min=0)],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit, so name no person.")] = "",
) -> None:
    """Change how many people a running or paused blast notifies in a minute. Exits 1 if it is neither, or cannot be so slow.

    Example: knocktwice blast throttle tea-week-47 600 --reason "the shop cannot answer so many"
    """
    pace = {"per_minute": per_minute or "all"}
    row, done = _steered(
        blast, "throttle", reason, lambda conn, row: states.throttle(conn, row.id, per_minute or None), pace
    )
    _say(row, done, f"{per_minute or 'all'} people a minute", "running or paused")


@app.command()
def abort(blast: Which, reason: Why = "aborted by hand") -> None:
    """End a blast and cancel what it has not sent yet, the SMS of those who were pushed too. Also when it has finished.

    Example: knocktwice blast abort tea-week-47 --reason "wrong price in the text"
    """
    row, done = _steered(blast, "abort", reason, lambda conn, row: states.abort(conn, row.key, reason, row.project))
    out.print(f"blast {row.key}: {'aborted' if done else 'was aborted before'}", markup=False)


def _steered(
    blast: str,
    verb: str,
    reason: str,
    steer: Callable[[Connection, Standing], bool],
    more: Mapping[str, Any] | None = None,
) -> tuple[Standing, bool]:
    """Steer a blast, and write down who did it and why; return it as it was, and whether anything changed."""
    by = audit.of_this_account(reason)
    with reading(services()) as conn:
        row = blast_progress.find(conn, blast)
        done = steer(conn, row)
        if done:
            audit.note(conn, by, f"{verb} blast", {"blast": row.key, **(more or {})})
        conn.commit()
    return row, done


@app.command()
def cost(blast: Which, as_json: AsJson = False) -> None:
    """Show what a blast has cost so far, and what texting everybody would have cost.

    Example: knocktwice blast cost summer-sale
    """
    here = services()
    with reading(here) as conn:
        row = blast_progress.find(conn, blast)
        zone = here.settings.day_zone
        first, last = row.created_at.astimezone(zone).date(), datetime.now(zone).date() + timedelta(days=1)
        rollups.refresh(here.engine, here.settings.sms_day_zone, everything=True)
        told = figures.report(
            conn,
            by=figures.Dimension.BLAST,
            since=first,
            until=last,
            project=row.project or "",
            prices=here.channels.prices,
        ).lines.get(row.key, Figures())
    waiting = row.total - row.sent
    if as_json:
        print_json({"blast": row.key, "state": row.state, "not_notified_yet": waiting, **told.as_json()})
        return
    out.print(f"blast {row.key}: {row.state}, {row.sent} of {row.total} people notified", markup=False)
    for name, value in (
        ("SMS sent", str(told.sms_sent)),
        ("SMS parts", str(told.sms_parts)),
        ("cost so far", _money(told.cost)),
        ("texting everybody", _money(told.sms_only_cost)),
    ):
        out.print(f"{name:18}{value:>12}")
    if told.cost is None:
        out.print("some SMS have no price; see KNOCKTWICE_SMS_PRICES", soft_wrap=True)


def _money(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:.4f}"


@app.command()
def unschedule(name: Annotated[str, typer.Argument(help="The recurring blast's name.")]) -> None:
    """Forget a recurring blast. What it has started goes on. Exits 1 if there is none of that name.

    Example: knocktwice blast unschedule weekly-tea
    """
    with reading(services()) as conn:
        found = schedules.delete(conn, name)
        conn.commit()
    if not found:
        fail(f"there is no recurring blast called {name}; 'knocktwice blast list' lists them")
    out.print(f"recurring blast {name}: deleted", markup=False)


def _say(row: Standing, done: bool, what: str, needed: str) -> None:
    if not done:
        fail(f"blast {row.key} is not {needed}, it is {row.state}")
    out.print(f"blast {row.key}: {what}", markup=False)
