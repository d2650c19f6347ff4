"""The ``knocktwice`` command. Every reading command takes ``--json``; exit codes: 0 fine, 1 not fine, 2 wrong use."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.table import Table

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.cli import (
    blast,
    brake,
    dead,
    erase,
    gateway,
    history,
    inbound,
    opt_out,
    outbox,
    push_options,
    receipts,
    segment,
    send_options,
    stats,
    step_options,
    switches,
    template,
    tpns,
    unknown,
    user,
    webhooks,
)
from knocktwice_worker.cli.doctor import Level, examine
from knocktwice_worker.cli.output import AsJson, clock, complain, fail, out, print_json, reading
from knocktwice_worker.cli.template import given_values
from knocktwice_worker.embedded.installation import broker_url
from knocktwice_worker.reporting import story
from knocktwice_worker.services import services

app = typer.Typer(
    name="knocktwice",
    help="Push first; if nobody answers in time, an SMS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(segment.app)


def main() -> None:
    """Run the command line; errors that a person can mend are one line, not a traceback."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    for word in sys.argv[1:]:
        # Python hands over bytes that are no UTF-8 as halves of surrogate pairs, which no server takes.
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            complain(f"{word!a} is not UTF-8; type it in a UTF-8 terminal")
            sys.exit(2)
    try:
        app()
    except KnocktwiceError as error:
        complain(str(error))
        sys.exit(1)


@app.command()
def notify(
    title: Annotated[str | None, typer.Option(help="Title of the push.")] = None,
    body: Annotated[str | None, typer.Option(help="Text of the push; also of the SMS unless --sms gives one.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A template that says it, instead of --title and --body.")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="A value as NAME=VALUE; 1=VALUE is for {1}. Repeat.")] = None,
    params: Annotated[str | None, typer.Option(help="All values as JSON, an object or a list.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the template's texts, like de-AT.")] = None,
    user: Annotated[str | None, typer.Option(help="A user whose devices and phone are registered.")] = None,
    registration: Annotated[list[str] | None, typer.Option(help="FCM registration; repeat for more devices.")] = None,
    phone: Annotated[str | None, typer.Option(help="Number for the SMS, like +16505550100.")] = None,
    sms: Annotated[
        str | None, typer.Option(help="Text of the SMS; without --title and --body all that is sent, at once.")
    ] = None,
    when: Annotated[
        str | None,
        typer.Option(
            help="notifications_disabled, not_delivered or not_clicked; 'never' for no SMS.",
            show_default="the template's, or not_delivered",
        ),
    ] = None,
    after: Annotated[
        float | None,
        typer.Option(help="Seconds from the push to the SMS.", min=0, show_default="the template's, or 300"),
    ] = None,
    step: Annotated[list[str] | None, step_options.each("--sms, --when and --after")] = None,
    steps: step_options.StepsFile = None,
    no_push: Annotated[bool, typer.Option("--no-push", help="Send a template's SMS alone, at once.")] = False,
    send_at: Annotated[
        str | None, typer.Option(help="When it goes out, like 2026-11-22T09:00+01:00.", show_default="now")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="--send-at is by the clock on the recipient's wall.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key never notifies twice.")] = None,
    category: Annotated[
        str | None,
        typer.Option(help="transactional, marketing or critical.", show_default="the template's, or transactional"),
    ] = None,
    valid_for: send_options.ValidFor = None,
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
    """Notify one person and print the notification's id.

    \b
    Push, and an SMS if it was not delivered within ten minutes:
      knocktwice notify --user ada --title "Order ready" --body "Pick it up until 6 pm" --after 600
    Push, then two SMS, the second one if nobody clicked anything:
      knocktwice notify --user ada --title "Order ready" --body "Pick it up until 6 pm" \\
        --step 'sms after=5m' --step 'sms when=not_clicked after=2h text="Your order is ready, Ada."'
    """
    from knocktwice import Client
    from knocktwice_worker.cli import phone_options

    plan = step_options.plan(step or (), steps)
    if plan is not None:
        send_options.only_steps(sms, when, after)
    if title is None and body is None and template is None and sms is None and plan is None:
        raise typer.BadParameter("nothing to say; give it, a --template, an --sms or a --step", param_hint="--title")
    texts = {"link": link, "image": image, "subtitle": subtitle, "sound": sound, "badge": badge}
    texts |= {"channel_id": channel_id, "priority": priority, "icon": icon, "color": color}
    looks = push_options.fields(data or (), {"android": android, "apns": apns, "webpush": webpush}, **texts)
    push = send_options.push(title, body, looks, wanted=not no_push)
    values = given_values(params, param or [])
    at = send_options.send_at(send_at, local=local)
    with Client(broker_url(services().settings)) as client:
        id_ = client.notify(
            user=user,
            registrations=registration or (),
            phone=None if phone is None else phone_options.textable(phone, "phone", services().settings.phone_rules),
            push=push,
            template=template,
            sms=None
            if plan
            else send_options.sms(sms, when, after, template=template is not None, pushed=push is not None),
            steps=plan,
            params=values or None,
            locale=locale,
            key=key,
            category=category,
            send_at=at,
            valid_for=send_options.valid_for(valid_for),
        )
    print(json.dumps({"id": str(id_)}) if as_json else id_)


@app.command()
def cancel(
    ids: Annotated[list[str] | None, typer.Argument(help="Notifications' ids.")] = None,
    key: Annotated[str | None, typer.Option(help="An idempotency key, instead of or beside ids.")] = None,
) -> None:
    """Stop notifications: a push not sent yet is not sent, an SMS not sent yet never is."""
    from knocktwice import Client

    with Client(broker_url(services().settings)) as client:
        client.cancel(*ids or (), key=key)
    out.print("accepted; 'knocktwice status' shows what it stopped")


@app.command()
def status(
    notification: Annotated[str, typer.Argument(help="Id or idempotency key.")], as_json: AsJson = False
) -> None:
    """Show where a notification and its steps stand. Exits 1 if it is not known."""
    found = _story(notification)
    if as_json:
        print_json({k: v for k, v in dataclasses.asdict(found).items() if k != "moments"})
        return
    out.print(f"[bold]{found.id}[/] {_state(found)}" + (f" — {escape(found.reason)}" if found.reason else ""))
    table = Table("step", "channel", "state", "provider", "reported", "reason", "due")
    for step in found.steps:
        error = f" ({step.provider_error})" if step.provider_error else ""
        reported = f"{step.provider_status}{error}" if step.provider_status else ""
        due, reason = clock(step.due_at), escape(step.reason or "")
        table.add_row(str(step.step), step.channel, step.state, step.provider or "", reported, reason, due)
    out.print(table)
    for wait in found.waits:
        out.print(escape(wait.sentence), soft_wrap=True)


@app.command()
def explain(
    notification: Annotated[str, typer.Argument(help="Id or idempotency key.")], as_json: AsJson = False
) -> None:
    """Tell the story of a notification from its rows: what happened, what was decided, and why."""
    found = _story(notification)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    reason = f" — {escape(found.reason)}" if found.reason else ""
    out.print(f"[bold]{found.id}[/], {found.category}: {_state(found)}{reason}")
    for moment in found.moments:
        out.print(f"  {clock(moment.at)}  {escape(moment.sentence)}", soft_wrap=True)
    for wait in found.waits:
        out.print(f"  {'now':19}  {escape(wait.sentence)}", soft_wrap=True)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check servers, workers, credentials and backlog. Exits 1 if something does not work."""
    checks = examine(services())
    if as_json:
        print_json([dataclasses.asdict(c) for c in checks])
    else:
        colours = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
        for check in checks:
            line = f"[{colours[check.level]}]{check.level:8}[/] {check.name:13} {escape(check.finding)}"
            out.print(line, soft_wrap=True)
    if any(c.level is Level.ERROR for c in checks):
        raise typer.Exit(1)


@app.command()
def migrate() -> None:
    """Bring the database schema up to date. Safe to run at any time, also by several machines at once."""
    from knocktwice_worker.database import migrations

    here = services()
    reading(here).close()
    migrations.upgrade(here.engine)
    out.print("the schema is up to date")


@app.command()
def up(
    flower_port: Annotated[int, typer.Option(help="Flower's port on 127.0.0.1.")] = 5555,
    sandbox_port: Annotated[int, typer.Option(help="The sandbox's port on 127.0.0.1.")] = 8025,
    gateway_port: Annotated[int, typer.Option(help="The HTTP gateway's port on 127.0.0.1.")] = 8080,
) -> None:
    """Run the whole stack until Ctrl-C: servers, worker, beat, Flower, HTTP gateway and, without credentials, the sandbox."""
    from knocktwice_worker.cli.up import run_stack

    ports = {"flower_port": flower_port, "sandbox_port": sandbox_port, "gateway_port": gateway_port}
    raise typer.Exit(run_stack(services().settings, **ports))


@app.command()
def env() -> None:
    """Print what another terminal needs beside a running `knocktwice up`. Exits 1 if none runs here.

    Example: eval "$(knocktwice env)"
    """
    from knocktwice_worker.cli import stack_file

    home = services().settings.home
    exports = stack_file.read(home)
    if exports is None:
        fail(f"no stack runs in {home.resolve()}; start one with 'knocktwice up'")
    print(exports, end="")


@app.command()
def demo() -> None:
    """Send three notifications to simulated people and show what happens. Exits 0 only if all went as promised."""
    from knocktwice_worker.cli.demo import run_demo

    raise typer.Exit(run_demo())


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8025,
) -> None:
    """Run the stand-in for the providers until Ctrl-C."""
    from knocktwice_worker.cli.up import run_sandbox

    raise typer.Exit(run_sandbox(services().settings, port))


app.command()(stats.stats)
app.command()(stats.advise)
app.command()(template.apply)
app.add_typer(template.app)
app.add_typer(opt_out.app)
app.add_typer(inbound.app)
app.add_typer(tpns.app)
app.command("erase-user")(erase.erase_user)
app.add_typer(user.app)
app.add_typer(webhooks.app)
app.command()(gateway.gateway)
app.add_typer(gateway.app)
app.add_typer(blast.app)
app.add_typer(brake.app)
app.add_typer(dead.app)
app.command("history")(history.history)
app.command()(switches.pause)
app.command()(switches.resume)
app.command("switches")(switches.list_all)
app.command("set")(switches.change)
app.command("unset")(switches.restore)
app.command("audit")(switches.audit_lines)
app.add_typer(receipts.app)
app.add_typer(unknown.app)
app.add_typer(outbox.app)


def _state(told: story.Story) -> str:
    """Return the state, and what became of the last message: an SMS that was not delivered is not just texted."""
    return told.state + (f", {told.provider_status}" if told.provider_status else "")


def _story(notification: str) -> story.Story:
    with reading(services()) as conn:
        told = story.tell(conn, notification)
    if told is None:
        fail(f"no notification {notification}; if it was accepted a moment ago, the worker may not have written it yet")
    return told
