"""``knocktwice webhooks``: who is told what happens to notifications."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.table import Table

from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli import times
from knocktwice_worker.cli.output import AsJson, clock, fail, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.services import services
from knocktwice_worker.webhooks import endpoints, events, signing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

app = typer.Typer(name="webhooks", help="Tell an application what happens to notifications.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The endpoint's id.")]


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where events are posted to; https.")],
    types: Annotated[str, typer.Option("--events", help="Only these types, with commas between; left out: all.")] = "",
    personal: Annotated[bool, typer.Option("--personal", help="Tell user id, number and key, too.")] = False,
    project: Annotated[str | None, typer.Option(help="Only of this project; left out, of everything.")] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Only of tests, of which other endpoints are told nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell an endpoint what happens from now on, and print its id and what it verifies signatures with.

    Example: knocktwice webhooks add https://shop.example/hooks --events notification.finished
    """
    here = services()
    wanted = [event.strip() for event in types.split(",") if event.strip()]
    with _database() as conn:
        private = here.settings.webhook_private
        id_ = endpoints.add(conn, url, wanted, personal=personal, private=private, project=project, test=test)
    key = signing.key_of(here.webhook_secrets[0], id_)
    if as_json:
        print_json({"id": id_, "secret": key})
        return
    out.print(f"{id_}\nsecret {key}", soft_wrap=True)


@app.command("list")
def list_all(
    secrets: Annotated[bool, typer.Option("--secrets", help="Also what each verifies signatures with.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the endpoints, how they do, and why one is disabled.

    Example: knocktwice webhooks list --json
    """
    with _database() as conn:
        found = endpoints.list_all(conn)
    key = services().webhook_secrets[0] if secrets else ""
    if as_json:
        print_json(
            [dataclasses.asdict(each) | ({"secret": signing.key_of(key, each.id)} if secrets else {}) for each in found]
        )
        return
    table = Table("id", "url", "events", "project", "waiting", "state", *(["secret"] if secrets else []))
    for each in found:
        cells = [each.id, each.url, ", ".join(each.events) or "all", each.project, str(each.waiting), _state(each)]
        table.add_row(*cells, *([signing.key_of(key, each.id)] if secrets else []))
    print_table(table, as_csv=as_csv, empty="nobody is told; 'knocktwice webhooks add' names an address")


@app.command()
def remove(endpoint: Id) -> None:
    """Forget an endpoint and what it was not told yet. Exits 1 if there is none of that id.

    Example: knocktwice webhooks remove 019a7c2e-0000-7000-8000-000000000001
    """
    with _database() as conn:
        endpoints.remove(conn, endpoint)
    out.print("removed")


@app.command()
def enable(endpoint: Id) -> None:
    """Send to an endpoint that was disabled again; first what waits for it.

    Example: knocktwice webhooks enable 019a7c2e-0000-7000-8000-000000000001
    """
    with _database() as conn:
        endpoints.enable(conn, endpoint)
    out.print("enabled; what happened meanwhile: knocktwice webhooks replay")


@app.command()
def test(endpoint: Id) -> None:
    """Send an endpoint one event of type knocktwice.test. Exits 1 if it is not taken.

    Example: knocktwice webhooks test 019a7c2e-0000-7000-8000-000000000001
    """
    here = services()
    with _database() as conn:
        found = endpoints.get(conn, endpoint)
    if error := here.webhooks.test(found.id, found.url):
        fail(f"{found.url}: {error}")
    out.print("taken")


@app.command()
def replay(
    notification: Annotated[str | None, typer.Argument(help="Id of one notification.")] = None,
    since: Annotated[str | None, typer.Option(help="All since then: like 2h, 7d or 2026-11-21T09:30+01:00.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell again what happened since a time, or to one notification. Events keep their ids.

    Example: knocktwice webhooks replay --since 2h
    """
    if (notification is None) == (since is None):
        raise InvalidMessage("since", "give either --since or the id of a notification")
    with _database() as conn:
        if endpoint is not None:
            endpoints.get(conn, endpoint)
        if since is not None:
            count = events.replay(conn, since=times.moment(since, "since"), endpoint=endpoint)
        else:
            count = events.replay(conn, notification=_id(notification), endpoint=endpoint)
    if as_json:
        print_json({"events": count})
        return
    out.print(f"{many(count, 'event is', 'events are')} sent again")


@contextmanager
def _database() -> Iterator[Connection]:
    with reading(services()) as conn, conn.begin():
        yield conn


def _state(endpoint: endpoints.Endpoint) -> str:
    if endpoint.disabled_reason:
        return f"disabled {clock(endpoint.disabled_at)}: {endpoint.disabled_reason}"
    if endpoint.failing_since:
        return f"failing since {clock(endpoint.failing_since)}: {endpoint.last_error}"
    return "well"


def _id(notification: str | None) -> str:
    try:
        return str(UUID(notification or ""))
    except ValueError:
        raise InvalidMessage("notification", "must be a notification's id") from None
