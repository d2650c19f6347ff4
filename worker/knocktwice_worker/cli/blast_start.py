"""``knocktwice blast start``: its options, what the blast would cost, and the start.

Exit codes: 0 it is started, or was before with this key; 1 it cannot be; 2 wrong use; 3 over its budget.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice import wire
from knocktwice_shared.messages import parse_blast
from knocktwice_worker.blasts import own_params, request, standing
from knocktwice_worker.cli import (
    blast_people,
    blast_progress,
    contents_options,
    params_file,
    push_options,
    send_options,
    step_options,
)
from knocktwice_worker.cli.blast_preflight import Budget, examined
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.cli.template import given_values
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_shared.messages import Blast


@dataclass(frozen=True, slots=True)
class Order:
    """A blast as the options ask for it.

    Attributes:
        segment: a saved segment.
        key: the blast's key.
        shared: what is said, when and to which project it belongs.
        values: values for the texts, the same for all.
        file: a CSV file with own values for each person; ``None``: there is none.
        per_minute: most people in any minute; ``None``: as fast as it goes.
        budget: the most that it may cost.
        preview: people for whom it is shown what they would get.
        dry_run: whether nothing is started.
    """

    segment: str
    key: str
    shared: wire.Shared
    values: Mapping[str, Any]
    file: Path | None
    per_minute: int | None
    budget: Budget
    preview: Sequence[str]
    dry_run: bool

    def blast(self, own: Mapping[str, str]) -> Blast:
        """Return the blast, checked with one person's own values."""
        values = {**self.values, **own}
        message = wire.blast(self.segment, self.shared, key=self.key, params=values, throttle_per_min=self.per_minute)
        return replace(parse_blast(message), params=self.values)


def carry_out(order: Order, *, quiet: bool) -> dict[str, Any]:
    """Start a blast, or show what it would do. Ends the command if that cannot be or is over the budget.

    Args:
        order: what is asked for.
        quiet: print nothing on the way.

    Returns:
        What is known now, as JSON: ``id``, ``key``, ``new`` and ``differs`` of a blast that was started, here or before.

    Raises:
        InvalidMessage: the blast is wrong, in the words of the options.
    """
    told: dict[str, Any] = {}
    with wire.in_callers_words(wire.with_steps(str, order.shared)), ExitStack() as stack:
        given = stack.enter_context(params_file.opened(order.file)) if order.file else None
        blast = order.blast(given.first if given else {})
        # One transaction: what the file says is there until it is decided about.
        conn = stack.enter_context(reading(services()))
        known = standing.of(conn, blast) is not None
        sample = None
        if given is not None and (order.dry_run or not known):
            sample, told["people"] = blast_people.gathered(conn, given, blast, quiet=quiet)
        if order.dry_run or (not known and order.budget.limited):
            each = blast if sample is None else request.filled(blast, sample)
            only = None if sample is None else own_params.people()
            told["preflight"] = examined(conn, each, order.budget, only, show=order.dry_run and not quiet)
        if order.preview:
            told["previews"] = [
                blast_people.preview(conn, blast, user, own=sample is not None, quiet=quiet) for user in order.preview
            ]
        if not order.dry_run:
            started = request.start(conn, blast, settings=services().settings, sample=sample)
            differs = not started.new and request.differs(conn, blast)
            conn.commit()
            told |= {"id": started.id, "key": order.key, "new": started.new, "differs": differs}
    return told


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
    order = Order(segment, key, shared, values, file, per_minute, budget, preview or (), dry_run)
    told = carry_out(order, quiet=as_json)
    if as_json:
        print_json(told)
    elif not dry_run:
        before = (
            "was started before" + (", with other people or words" if told["differs"] else "") + "; nothing was done"
        )
        out.print(f"blast {key}: {'started' if told['new'] else before}", markup=False)
    if wait and not dry_run:
        blast_progress.watch(str(told["id"]))
