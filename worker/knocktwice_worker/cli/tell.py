"""``knocktwice status`` and ``knocktwice explain``: one notification."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json, reading_all
from knocktwice_worker.cli.tables import print_table
from knocktwice_worker.reporting import story
from knocktwice_worker.services import services


def status(
    notification: Annotated[str, typer.Argument(help="Id or idempotency key.")], as_json: AsJson = False
) -> None:
    """Show where a notification and its steps stand. Exits 1 if it is not known.

    Example: knocktwice status order-4711-on-its-way
    """
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
    print_table(table)
    for wait in found.waits:
        out.print(escape(wait.sentence), soft_wrap=True)


def explain(
    notification: Annotated[str, typer.Argument(help="Id or idempotency key.")], as_json: AsJson = False
) -> None:
    """Tell the story of a notification: what happened, what was decided, and why.

    Example: knocktwice explain order-4711-on-its-way
    """
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
    for one in found.would_have_sent:
        said = " | ".join(f"{name}: {value}" for name, value in one.content.items())
        out.print(f"  would have been sent by {one.channel} to {one.to}: {escape(said)}", soft_wrap=True)


def _state(told: story.Story) -> str:
    """Return the state, and what became of the last message: an SMS that was not delivered is not just texted."""
    mark = "TEST, " if told.test else ""
    return mark + told.state + (f", {told.provider_status}" if told.provider_status else "")


def _story(notification: str) -> story.Story:
    with reading_all(services()) as conns:
        told = next((one for conn in conns if (one := story.tell(conn, notification)) is not None), None)
    if told is None:
        fail(f"no notification {notification}; if it was accepted a moment ago, the worker may not have written it yet")
    return told
