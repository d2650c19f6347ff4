"""``knocktwice outbox``: publish what an application has committed to the outbox in its own database."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice_worker.cli.output import AsJson, fail, out, print_json
from knocktwice_worker.embedded.installation import broker_url
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice.outbox import Relay

app = typer.Typer(
    name="outbox", help="Messages that an application commits with its own transaction.", no_args_is_help=True
)

Database = Annotated[
    str | None,
    typer.Option("--database", help="The application's PostgreSQL.", show_default="KNOCKTWICE_OUTBOX_DATABASE_URL"),
]


@app.command()
def relay(database: Database = None) -> None:
    """Publish the rows of an application's outbox, in their order and at least once each, until Ctrl-C or SIGTERM.

    Several may run: one works, the others stand by. See docs/acceptance.md.

    Example: knocktwice outbox relay --database postgresql://shop@db.internal/shop
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    running = _relay(database)
    out.print("publishing the outbox; Ctrl-C ends it")
    running.run(stop)
    running.close()


@app.command()
def status(database: Database = None, as_json: AsJson = False) -> None:
    """Show how many messages wait in the outbox, and since when. Exits 1 if the oldest has waited for over a minute.

    Example: knocktwice outbox status --json
    """
    import psycopg2

    looking = _relay(database)
    try:
        waiting, age_s = looking.waiting()
    except psycopg2.Error as error:
        fail(f"the application's database: {str(error).strip().splitlines()[0]}")
    finally:
        looking.close()
    if as_json:
        print_json({"waiting": waiting, "oldest_s": round(age_s, 1)})
    else:
        out.print(f"{waiting} waiting" + (f", the oldest for {age_s:.0f} s" if waiting else ""))
    if age_s > 60:
        raise typer.Exit(1)


@app.command()
def create(
    database: Database = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the statement for your own migrations; run nothing.")
    ] = False,
) -> None:
    """Make the outbox's table in the application's database, if it is not there.

    Example: knocktwice outbox create --show
    """
    from knocktwice.outbox import DDL

    if show:
        print(f"{DDL};")
        return
    with _connect(_url(database)) as connection, connection.cursor() as cursor:
        cursor.execute(DDL)
    out.print("the table knocktwice_outbox is there")


def _relay(database: str | None) -> Relay:
    from knocktwice.outbox import Relay

    url, settings = _url(database), services().settings
    return Relay(lambda: _connect(url), broker_url(settings), state_url=settings.state_url)


def _url(database: str | None) -> str:
    given = database or services().settings.outbox_database_url
    if not given:
        fail("name the application's database: --database postgresql://… or KNOCKTWICE_OUTBOX_DATABASE_URL")
    scheme, separator, rest = given.partition("://")
    return f"postgresql://{rest}" if separator and scheme.startswith("postgres") else given


def _connect(url: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        url, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=30_000
    )
