"""Commands that run or prepare an installation: ``up``, ``env``, ``demo``, ``sandbox`` and ``migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from knocktwice_worker.cli.output import fail, out, reading
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.services import services


def migrate() -> None:
    """Bring the database schema up to date. Safe to run at any time, also by several machines at once.

    Example: knocktwice migrate
    """
    from knocktwice_worker.database import migrations

    here = services()
    if here.settings.database_pooled:
        fail(
            "migrations need a session of their own: run this with KNOCKTWICE_DATABASE_URL naming PostgreSQL itself and "
            "KNOCKTWICE_DATABASE_POOLED=false"
        )
    with reading(here) as conn:
        waiting = migrations.pending(conn)
    with progress("migrating", len(waiting)) as bar:
        migrations.upgrade(here.engine, applied=bar.advance)
    out.print("the schema is up to date")


def up(
    flower_port: Annotated[int, typer.Option(help="Flower's port on 127.0.0.1.")] = 5555,
    sandbox_port: Annotated[int, typer.Option(help="The sandbox's port on 127.0.0.1.")] = 8025,
    gateway_port: Annotated[int, typer.Option(help="The HTTP gateway's port on 127.0.0.1.")] = 8080,
) -> None:
    """Run the whole stack until Ctrl-C: servers, worker, beat, Flower, HTTP gateway and, without credentials, the sandbox.

    Example: knocktwice up --gateway-port 8090
    """
    from knocktwice_worker.cli.up import run_stack

    ports = {"flower_port": flower_port, "sandbox_port": sandbox_port, "gateway_port": gateway_port}
    raise typer.Exit(run_stack(services().settings, **ports))


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


def demo() -> None:
    """Send three notifications to simulated people and show what happens. Exits 0 only if all went as promised.

    Example: knocktwice demo
    """
    from knocktwice_worker.cli.demo import run_demo

    raise typer.Exit(run_demo())


def sandbox(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8025,
) -> None:
    """Run the stand-in for the providers until Ctrl-C.

    Example: knocktwice sandbox --port 8025
    """
    from knocktwice_worker.cli.up import run_sandbox

    raise typer.Exit(run_sandbox(services().settings, port))
