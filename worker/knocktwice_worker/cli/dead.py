"""``knocktwice dead``: messages that nobody could process."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from knocktwice_shared.names import Queue  # noqa: TC001 - typer reads the annotation
from knocktwice_worker.cli import times
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json, reading
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.services import services
from knocktwice_worker.switches import audit

if TYPE_CHECKING:
    from knocktwice_worker.notifications.inbox.dead_letters import Parked
    from knocktwice_worker.services import Services

app = typer.Typer(name="dead", help="Messages that nobody could process.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="The message's number, as 'dead list' shows it.", min=1)]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit, so name no person.")]


@app.command("list")
def list_all(
    task: Annotated[str | None, typer.Option(help="Only those for this task, like knocktwice.send_push.")] = None,
    queue: Annotated[Queue | None, typer.Option(help="Only those of the tasks that travel on this queue.")] = None,
    error: Annotated[str | None, typer.Option(help="Only those whose reason holds this text.")] = None,
    user: Annotated[str | None, typer.Option(help="Only those that name this user.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Parked since: a day like 2026-11-01, or how long ago, like 3h.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Parked before: likewise.")] = None,
    after: Annotated[int, typer.Option(help="Only those with a larger number, for the next page.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List parked messages, the oldest first: number, when, task and what is wrong.

    \b
    knocktwice dead list
    knocktwice dead list --queue knocktwice.push --error "no such template" --since 3h
    """
    wanted = dead_letters.Wanted(
        task=task,
        queue=queue,
        error=error,
        user=user,
        since=None if since is None else times.moment(since, "since"),
        until=None if until is None else times.moment(until, "until"),
    )
    with reading(services()) as conn:
        found = dead_letters.page(conn, wanted, after=after, limit=limit)
    if as_json:
        print_json(
            [{"id": o.id, "at": o.at, "message_id": o.message_id, "task": o.task, "reason": o.kind} for o in found]
        )
        return
    for one in found:
        out.print(f"{one.id}  {clock(one.at)}  {escape(one.task or 'no task')}: {escape(one.why)}", soft_wrap=True)
    out.print(f"{len(found)} shown; 'knocktwice dead show' tells more of one" if found else "none")


@app.command()
def show(
    number: Number,
    payload: Annotated[bool, typer.Option("--payload", help="The message too, which may name people.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show why a message was parked. What it says stands behind --payload.

    Example: knocktwice dead show 17
    """
    one = _found(services(), number)
    told = dataclasses.asdict(one)
    if not payload:
        told["payload"] = f"({len(one.payload)} characters)"
        told["reason"] = one.kind
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        out.print(f"{name:12}{escape(str(value if value is not None else ''))}", soft_wrap=True)


@app.command()
def replay(number: Number, reason: Reason = "", as_json: AsJson = False) -> None:
    """Hand a parked message to the workers once more. What is there already is not done twice.

    Example: knocktwice dead replay 17 --reason "the template exists now"
    """
    here, by = services(), audit.of_this_account(reason)
    task = here.inbox.replay(_found(here, number))
    with here.engine.begin() as conn:
        audit.note(conn, by, "replay", {"dead_letter": number, "task": task})
    print_json({"replayed": number}) if as_json else out.print(f"{number} is handed to the workers again ({task})")


@app.command()
def drop(
    number: Number,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a parked message for good.

    Example: knocktwice dead drop 17 --reason "sent by hand"
    """
    here, by = services(), audit.of_this_account(reason)
    one = _found(here, number)
    if not yes:
        typer.confirm(f"Forget {one.id} ({one.task or 'no task'}: {one.why})?", abort=True, err=True)
    with here.engine.begin() as conn:
        dead_letters.drop(conn, number)
        audit.note(conn, by, "drop", {"dead_letter": number, "task": one.task})
    print_json({"dropped": number}) if as_json else out.print(f"{number} is forgotten")


def _found(here: Services, number: int) -> Parked:
    with reading(here) as conn:
        return dead_letters.get(conn, number) or fail(
            f"there is no parked message {number}; see 'knocktwice dead list'"
        )
