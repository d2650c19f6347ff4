"""``knocktwice pause``, ``resume``, ``set`` and ``unset``: what operators switch on every worker, recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from knocktwice_shared.messages import Category
from knocktwice_worker.cli.output import AsJson, clock, out, print_json, reading
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.services import services
from knocktwice_worker.switches import audit, overrides, pauses

if TYPE_CHECKING:
    from knocktwice_worker.services import Services


What = Annotated[str | None, typer.Argument(help="push, sms, another channel, or all.", metavar="[CHANNEL]")]
Channel = Annotated[str | None, typer.Option(help="The same as the argument.")]
Provider = Annotated[
    str | None, typer.Option(help="Only what this provider would carry; others take over if there are.")
]
Sender = Annotated[str | None, typer.Option(help="Only messages from this sender.")]
Country = Annotated[str | None, typer.Option(help="Only messages to numbers of this country, like DE.")]
Template = Annotated[str | None, typer.Option(help="Only messages with this template.")]
OfCategory = Annotated[Category | None, typer.Option("--category", help="Only messages of this category.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit, so name no person.")]


def pause(
    what: What = None,
    channel: Channel = None,
    provider: Provider = None,
    sender: Sender = None,
    country: Country = None,
    template: Template = None,
    category: OfCategory = None,
    span: Annotated[str | None, typer.Option("--for", help="It ends by itself after so long, like 1h.")] = None,
    drain: Annotated[bool, typer.Option("--drain", help="What is already decided still goes.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Let messages wait, on every worker within two seconds, until `knocktwice resume`. Nothing is lost.

    Clicks, cancellations and opt-outs still end what waits, and what is of no use any more does not go later.

    \b
    knocktwice pause sms --reason "the wrong text went out"
    knocktwice pause sms --country DE --for 2h --reason "the operator there is down"
    knocktwice pause push --template order_ready --reason "its link is broken"
    """
    here, by = _connected(), audit.of_this_account(reason)
    scope = _scope(what, channel, provider, sender, country, template, category)
    with here.engine.begin() as conn:
        scope = pauses.checked(conn, scope, here.channels)
        id_ = pauses.pause(conn, scope, by, span=pauses.span(span), drains=drain)
    if as_json:
        print_json({"id": id_, **asdict(scope)})
    else:
        out.print(f"pause {id_} is on: {escape(str(scope))}; 'knocktwice resume' with the same options ends it")


def resume(
    what: What = None,
    channel: Channel = None,
    provider: Provider = None,
    sender: Sender = None,
    country: Country = None,
    template: Template = None,
    category: OfCategory = None,
    number: Annotated[int | None, typer.Option("--id", help="The pause with this number.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All pauses.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """End a pause, named by the same options or by its number; what waits goes, through limits and quiet hours as always.

    Example: knocktwice resume sms --country DE --reason "the operator works again"
    """
    here, by = _connected(), audit.of_this_account(reason)
    given = (what, channel, provider, sender, country, template, category)
    ways = [number is not None, everything, any(one is not None for one in given)]
    if sum(ways) > 1:
        raise typer.BadParameter(
            "name the pause by its number, or by its options, or take --everything", param_hint="--id"
        )
    scope = Scope() if number is not None or everything else _scope(*given)
    with here.engine.begin() as conn:
        ended = pauses.resume(conn, scope, by, id_=number, everything=everything)
    if as_json:
        print_json({"ended": ended})
    else:
        out.print(f"ended: {', '.join(f'pause {id_}' for id_ in ended)}; workers take up what waits")


def list_all(
    everything: Annotated[bool, typer.Option("--all", help="Pauses that are over, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is paused, with how many messages wait for it, and which settings are changed.

    Example: knocktwice switches
    """
    with reading(_connected()) as conn:
        found, changed = pauses.list_all(conn, everything=everything), overrides.list_all(conn)
    if as_json:
        print_json({"pauses": [one.as_json() for one in found], "settings": [asdict(one) for one in changed]})
        return
    for one in found:
        over = f", over since {clock(one.ended_at)}" if one.ended_at else ""
        out.print(f"pause {one.id}  {escape(str(one))}{over}", soft_wrap=True)
    for setting in changed:
        out.print(f"{setting.name}={escape(setting.value)}  since {clock(setting.since)}", soft_wrap=True)
    if not found and not changed:
        out.print("nothing is paused, and no setting is changed")


def change(
    name: Annotated[str, typer.Argument(help="The setting, like KNOCKTWICE_SMS_BUDGET or sms_budget.")],
    value: Annotated[str, typer.Argument(help="Its value, as the variable would have it.")],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change a budget, the countries, the quiet hours or a pace on every worker within two seconds, and over restarts.

    \b
    knocktwice set sms_budget 5000 --reason "the campaign may cost more"
    knocktwice set sms_countries '["DE", "AT"]' --reason "pumping"
    """
    here, by = _connected(), audit.of_this_account(reason)
    with here.engine.begin() as conn:
        one = overrides.change(conn, here.settings, name, value, by)
    print_json(asdict(one)) if as_json else out.print(f"{one.name}={escape(one.value)} on every worker")


def restore(
    name: Annotated[str, typer.Argument(help="The setting.")], reason: Reason = "", as_json: AsJson = False
) -> None:
    """Let a changed setting be again as the workers' environment says.

    Example: knocktwice unset sms_budget --reason "the campaign is over"
    """
    here, by = _connected(), audit.of_this_account(reason)
    with here.engine.begin() as conn:
        restored = overrides.restore(conn, here.settings, name, by)
    print_json({"name": name}) if as_json else out.print(f"{restored} is as the workers' environment says")


def audit_lines(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many lines.")] = 20,
    before: Annotated[int | None, typer.Option(help="Only older lines than this number.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what operators did: who, when, what and why.

    Example: knocktwice audit
    """
    with reading(_connected()) as conn:
        found = audit.lines(conn, limit=limit, before=before)
    if as_json:
        print_json([asdict(line) for line in found])
        return
    for line in found:
        out.print(
            f"{line.id}  {clock(line.at)}  {escape(line.actor)}: {line.action} {escape(line.about)}", soft_wrap=True
        )
        out.print(f"  {escape(line.reason)}", soft_wrap=True)
    if not found:
        out.print("nobody has changed anything")


def _scope(
    what: str | None,
    channel: str | None,
    provider: str | None,
    sender: str | None,
    country: str | None,
    template: str | None,
    category: Category | None,
) -> Scope:
    if what is not None and channel is not None and what != channel:
        raise typer.BadParameter(f"it is {what} or {channel}, not both", param_hint="--channel")
    return pauses.named(
        channel if what is None else what,
        provider=provider,
        sender=sender,
        country=country,
        template=template,
        category=category and str(category),
    )


def _connected() -> Services:
    here = services()
    reading(here).close()
    return here
