"""``knocktwice blast``: one notification to everybody in a segment. Made for people and for cron.

Exit codes of ``start``: 0 it is started, or was before with this key; 1 it cannot be; 2 wrong use; 3 over its budget.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from knocktwice import wire
from knocktwice_shared.counted import many
from knocktwice_worker.blasts import schedules, standing, states
from knocktwice_worker.blasts.states import BlastState
from knocktwice_worker.cli import blast_start, contents_options, push_options, send_options, step_options
from knocktwice_worker.cli.blast_preflight import Budget
from knocktwice_worker.cli.output import AsJson, OfProject, clock, fail, out, print_json, reading
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.cli.template import given_values
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

Which = Annotated[str, typer.Argument(metavar="KEY", help="The blast's key, or its id.")]
Why = Annotated[str, typer.Option(help="Shown by status and kept in the audit, so name no person.")]

#: Seconds between two looks at a blast that is watched.
_LOOK_EVERY_S = 0.5


@app.command()
def start(
    segment: Annotated[str, typer.Argument(help="A saved segment.")],
    key: Annotated[str, typer.Option(help="The same key never fires twice.")],
    template: Annotated[str | None, typer.Option(help="What is said; instead of --title, --body and --sms.")] = None,
    title: Annotated[str | None, typer.Option(help="Push title; may hold placeholders.")] = None,
    body: Annotated[str | None, typer.Option(help="Push body; may hold placeholders.")] = None,
    sms: Annotated[
        str | None,
        typer.Option(help="Text of the SMS; left out, the push's body. Without --title and --body it goes at once."),
    ] = None,
    when: send_options.Condition = None,
    after: send_options.After = None,
    param: send_options.Param = None,
    params: Annotated[
        str | None,
        typer.Option(
            help="All values as JSON, an object or a list; or a CSV file with a row for each person, - for the input."
        ),
    ] = None,
    step: Annotated[
        list[str] | None, step_options.each("--sms, --when and --after, and of what the template says")
    ] = None,
    steps: step_options.StepsFile = None,
    contents: contents_options.Contents = None,
    default_locale: contents_options.DefaultLocale = None,
    no_push: send_options.NoPush = False,
    category: Annotated[str | None, typer.Option(help="Instead of the template's.")] = None,
    valid_for: send_options.ValidFor = None,
    per_minute: Annotated[int | None, typer.Option(help="Most people in any minute.", min=1)] = None,
    budget_parts: Annotated[int | None, typer.Option(help="Most SMS parts it may come to.", min=0)] = None,
    budget_cost: Annotated[
        float | None, typer.Option(help="Most money it may come to, by KNOCKTWICE_SMS_PRICES.", min=0)
    ] = None,
    expected_fallback_share: Annotated[
        float | None,
        typer.Option(help="Part of those pushed who will be texted; else that of the latest blasts.", min=0, max=1),
    ] = None,
    send_at: Annotated[
        str | None, typer.Option(help="When, like 2026-12-01T09:00+01:00; with --local without an offset.")
    ] = None,
    local: send_options.Local = False,
    project: send_options.Project = None,
    test: send_options.Test = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show whom it would reach at what cost; start nothing.")
    ] = False,
    preview: Annotated[
        list[str] | None, typer.Option(metavar="USER", help="Show what this person would get; start nothing. Repeat.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until everybody has been notified. Exits 1 if it is aborted.")
    ] = False,
    link: push_options.Link = None,
    image: push_options.Image = None,
    data: push_options.Data = None,
    subtitle: push_options.Subtitle = None,
    sound: push_options.Sound = None,
    badge: push_options.Badge = None,
    channel_id: push_options.ChannelId = None,
    priority: push_options.PushPriority = None,
    icon: push_options.Icon = None,
    color: push_options.Color = None,
    android: push_options.Android = None,
    apns: push_options.Apns = None,
    webpush: push_options.Webpush = None,
    as_json: AsJson = False,
) -> None:
    """Notify everybody in a segment. With the same key again it does nothing, and exits 0.

    \b
    What the template says, within a budget:
      knocktwice blast start tea --template tea_week --key tea-week-47 --budget-parts 5000
    Its push, and a day later an SMS of this blast's own to those who have not clicked:
      knocktwice blast start tea --template tea_week --key tea-week-48 \\
        --step 'sms when=not_clicked after=1d text="Tea is cheaper until Sunday."'
    A push of this blast's own, and no SMS:
      knocktwice blast start tea --key tea-week-49 --title "New teas" --body "First flush." --sound none --when never
    What each person gets of their own (columns: user or phone, and one for each value), looked at before:
      knocktwice blast start all --key bills-47 --template bill --params people.csv --dry-run --preview u-17
    """
    plan = step_options.plan(step or (), steps)
    if plan is not None:
        send_options.only_steps(sms, when, after)
    if title is None and body is None and template is None and sms is None and plan is None and contents is None:
        raise typer.BadParameter(
            "nothing to say; name one, or give a --title, an --sms or a --step", param_hint="--template"
        )
    texts = {"link": link, "image": image, "subtitle": subtitle, "sound": sound, "badge": badge}
    texts |= {"channel_id": channel_id, "priority": priority, "icon": icon, "color": color}
    looks = push_options.fields(data or (), {"android": android, "apns": apns, "webpush": webpush}, **texts)
    said = contents_options.said(contents, title, body, sms)
    push = send_options.push(said.title, said.body, {**looks, **said.looks}, wanted=not no_push)
    follows = (
        None
        if plan
        else send_options.sms(said.sms, when, after, template=template is not None, pushed=push is not None)
    )
    at = send_options.send_at(send_at, local=local)
    useful = send_options.valid_for(valid_for)
    whose = wire.side(project, test=test)
    shared = wire.Shared(push, follows, category, None, None, template, at, plan, useful, default_locale, whose)
    file = None if params is None or params.lstrip()[:1] in ("{", "[") else Path(params)
    values = given_values(None if file else params, param or [])
    budget = Budget(expected_fallback_share, budget_parts, budget_cost)
    dry_run = dry_run or bool(preview)
    order = blast_start.Order(segment, key, shared, values, file, per_minute, budget, preview or (), dry_run)
    told = blast_start.carry_out(order, quiet=as_json)
    if as_json:
        print_json(told)
    elif not dry_run:
        before = (
            "was started before" + (", with other people or words" if told["differs"] else "") + "; nothing was done"
        )
        out.print(f"blast {key}: {'started' if told['new'] else before}", markup=False)
    if wait and not dry_run:
        _watch(str(told["id"]))


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
        _watch(blast)
    with reading(services()) as conn:
        row = _found(standing.find(conn, blast), blast)
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
        row = _found(standing.find(conn, blast), blast)
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
        row = _found(standing.find(conn, blast), blast)
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


def _watch(blast: str) -> None:
    with progress("starting") as bar:
        while True:
            with reading(services()) as conn:
                row = _found(standing.find(conn, blast), blast)
            bar.update(done=row.sent, total=row.total if row.expanded_at else None, doing=row.state)
            if row.finished_at:
                break
            time.sleep(_LOOK_EVERY_S)
    if row.state is BlastState.ABORTED:
        fail(f"blast {row.key} was aborted: {row.reason}")
    out.print(f"blast {row.key}: {many(row.sent, 'person was', 'people were')} notified", markup=False)


def _found(row: Standing | None, blast: str) -> Standing:
    return row or fail(f"there is no blast {blast}; 'knocktwice blast list' lists them")


def _say(row: Standing, done: bool, what: str, needed: str) -> None:
    if not done:
        fail(f"blast {row.key} is not {needed}, it is {row.state}")
    out.print(f"blast {row.key}: {what}", markup=False)
