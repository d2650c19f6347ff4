"""``knocktwice notify`` and ``knocktwice cancel``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from knocktwice_worker.cli import contents_options, push_options, send_options, step_options
from knocktwice_worker.cli.output import AsJson, out
from knocktwice_worker.cli.template import given_values
from knocktwice_worker.services import services


def notify(
    title: Annotated[str | None, typer.Option(help="Title of the push.")] = None,
    body: Annotated[str | None, typer.Option(help="Text of the push; also of the SMS unless --sms gives one.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A template that says it, instead of --title and --body.")
    ] = None,
    param: send_options.Param = None,
    params: Annotated[str | None, typer.Option(help="All values as JSON, an object or a list.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the texts, like de-AT.")] = None,
    user: Annotated[str | None, typer.Option(help="A user whose devices and phone are registered.")] = None,
    registration: Annotated[list[str] | None, typer.Option(help="FCM registration; repeat for more devices.")] = None,
    phone: Annotated[str | None, typer.Option(help="Number for the SMS, like +16505550100.")] = None,
    sms: Annotated[
        str | None, typer.Option(help="Text of the SMS; without --title and --body all that is sent, at once.")
    ] = None,
    when: send_options.Condition = None,
    after: send_options.After = None,
    step: Annotated[list[str] | None, step_options.each("--sms, --when and --after")] = None,
    steps: step_options.StepsFile = None,
    contents: contents_options.Contents = None,
    default_locale: contents_options.DefaultLocale = None,
    no_push: send_options.NoPush = False,
    send_at: Annotated[
        str | None, typer.Option(help="When it goes out, like 2026-11-22T09:00+01:00.", show_default="now")
    ] = None,
    local: send_options.Local = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key never notifies twice.")] = None,
    category: Annotated[
        str | None,
        typer.Option(help="transactional, marketing or critical.", show_default="the template's, or transactional"),
    ] = None,
    valid_for: send_options.ValidFor = None,
    project: send_options.Project = None,
    test: send_options.Test = False,
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
      knocktwice notify --user ada --title "Order ready" --body "Pick it up until 6 pm" --after 10m
    Push, then two SMS, the second one if nobody clicked anything:
      knocktwice notify --user ada --title "Order ready" --body "Pick it up until 6 pm" \\
        --step 'sms after=5m' --step 'sms when=not_clicked after=2h text="Your order is ready, Ada."'
    """
    from knocktwice_worker.cli import phone_options

    plan = step_options.plan(step or (), steps)
    if plan is not None:
        send_options.only_steps(sms, when, after)
    if title is None and body is None and template is None and sms is None and plan is None and contents is None:
        raise typer.BadParameter("nothing to say; give it, a --template, an --sms or a --step", param_hint="--title")
    texts = {"link": link, "image": image, "subtitle": subtitle, "sound": sound, "badge": badge}
    texts |= {"channel_id": channel_id, "priority": priority, "icon": icon, "color": color}
    looks = push_options.fields(data or (), {"android": android, "apns": apns, "webpush": webpush}, **texts)
    said = contents_options.said(contents, title, body, sms)
    push = send_options.push(said.title, said.body, {**looks, **said.looks}, wanted=not no_push)
    values = given_values(params, param or [])
    at = send_options.send_at(send_at, local=local)
    with send_options.client(project, test=test) as client:
        id_ = client.notify(
            user=user,
            registrations=registration or (),
            phone=None if phone is None else phone_options.textable(phone, "phone", services().settings.phone_rules),
            push=push,
            template=template,
            sms=None
            if plan
            else send_options.sms(said.sms, when, after, template=template is not None, pushed=push is not None),
            steps=plan,
            params=values or None,
            locale=locale,
            key=key,
            category=category,
            send_at=at,
            valid_for=send_options.valid_for(valid_for),
            default_locale=default_locale,
        )
    print(json.dumps({"id": str(id_)}) if as_json else id_)


def cancel(
    ids: Annotated[list[str] | None, typer.Argument(help="Notifications' ids.")] = None,
    key: Annotated[str | None, typer.Option(help="An idempotency key, instead of or beside ids.")] = None,
    project: Annotated[
        str | None, typer.Option(help="Whose these are; those of others are left alone. A key without it is of none.")
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Stop tests, and nothing else.")] = False,
) -> None:
    """Stop notifications: a push not sent yet is not sent, an SMS not sent yet never is.

    Example: knocktwice cancel --key order-4711-on-its-way
    """
    with send_options.client(project, test=test) as client:
        client.cancel(*ids or (), key=key)
    out.print("accepted; 'knocktwice status' shows what it stopped")
