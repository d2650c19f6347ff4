"""Turns the options of ``knocktwice notify`` and ``blast start`` into the parts of a message."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from knocktwice import Client, LocalTime, Push, Sms
from knocktwice_shared.messages import AFTER_LIMIT, VALID_FOR_LIMIT
from knocktwice_worker.cli import times
from knocktwice_worker.embedded.installation import broker_url
from knocktwice_worker.notation import durations
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice import When
    from knocktwice_shared.messages import Text


ValidFor = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long after it was due it is of use, like 10m; later it is not sent.",
        show_default="the category's",
    ),
]

Project = Annotated[str | None, typer.Option(help="The application to which it belongs.", show_default="to none")]

Test = Annotated[
    bool, typer.Option("--test", help="Do everything but the provider's call; explain says what would have been sent.")
]

Condition = Annotated[
    str | None,
    typer.Option(
        help="notifications_disabled, not_delivered, not_clicked, not_answered, delivered or clicked; 'never' for no SMS.",
        show_default="the template's, or not_delivered",
    ),
]

Param = Annotated[list[str] | None, typer.Option(help="A value as NAME=VALUE; 1=VALUE is for {1}. Repeat.")]

NoPush = Annotated[bool, typer.Option("--no-push", help="Send a template's SMS alone, at once.")]

Local = Annotated[bool, typer.Option("--local", help="--send-at is by the clock on the recipient's wall.")]

After = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long after the push the SMS follows, like 10m; a bare number is seconds.",
        show_default="the template's, or 5m",
    ),
]


def client(project: str | None = None, *, test: bool = False) -> Client:
    """Return a client of this installation, or of all cells if it is one of them."""
    settings = services().settings
    if settings.cells_file is not None:
        return Client(cells=settings.cells_file, project=project, test=test)
    return Client(broker_url(settings), state_url=settings.state_url, project=project, test=test)


def valid_for(given: str | None) -> timedelta | None:
    """Return how long it is of use."""
    if given is None:
        return None
    try:
        return durations.typed(given, VALID_FOR_LIMIT)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--valid-for") from None


def push(
    title: Text | None, body: Text | None, looks: Mapping[str, Any], *, wanted: bool
) -> Push | Literal[False] | None:
    """Return the push; ``False`` where none is wanted although a template has one.

    Args:
        title, body: its texts.
        looks: its other fields, as far as they were given.
        wanted: whether there is to be one.
    """
    if (title is None) != (body is None):
        raise typer.BadParameter("go together", param_hint="--title and --body")
    if title is not None and body is not None:
        if not wanted:
            raise typer.BadParameter("leaves nothing to do for --title and --body", param_hint="--no-push")
        return Push(title, body, **looks)
    for name in looks:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter("says something of a push; give --title and --body, too", param_hint=option)
    return None if wanted else False


def sms(
    text: Text | None, when: str | None, after: str | None, *, template: bool, pushed: bool
) -> Sms | Literal[False] | None:
    """Return the SMS; ``None`` is what the template says, and nothing without a template.

    Args:
        text: its own.
        when: a condition, or ``never``.
        after: a span of time, as it is typed.
        template: whether one may say what follows the push.
        pushed: whether there is a push that it follows.
    """
    if when == "never":
        for name, given_ in (("--sms", text), ("--after", after)):
            if given_ is not None:
                raise typer.BadParameter("is about an SMS, and --when never sends none; leave one out", param_hint=name)
        return False
    if (template and text is None and when is None and after is None) or (not template and not pushed and text is None):
        return None
    default = Sms()
    given: When | str | int = default.when if when is None else when
    return Sms(text, when=given, after=default.after if after is None else times.span(after, "sms.after", AFTER_LIMIT))


def only_steps(sms: str | None, when: str | None, after: str | None) -> None:
    """Refuse what belongs into the steps, where those are given."""
    for name, given in (("--sms", sms), ("--when", when), ("--after", after)):
        if given is not None:
            raise typer.BadParameter("belongs into a step, like --step 'sms after=2h'", param_hint=name)


def send_at(given: str | None, *, local: bool) -> datetime | LocalTime | None:
    """Return when it is to go out."""
    if given is None:
        if local:
            raise typer.BadParameter("says whose time --send-at is; give that, too", param_hint="--local")
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter("must be a time like 2026-11-22T09:00+01:00", param_hint="--send-at") from None
    if local:
        if at.tzinfo is not None:
            raise typer.BadParameter("has a time zone; with --local it is the recipient's own", param_hint="--send-at")
        return LocalTime(at)
    if at.tzinfo is None:
        hint = "has no time zone; add one, like +01:00, or --local for the recipient's own time"
        raise typer.BadParameter(hint, param_hint="--send-at")
    return at
