"""Everything on one machine until Ctrl-C: servers, schema, sandbox, worker, beat, Flower and the HTTP gateway.

Made for trying it out, for development and for small installations. Elsewhere run the same commands by your own means
(``deploy/`` has examples).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from knocktwice import Client
from knocktwice_shared.errors import BrokerUnavailable
from knocktwice_worker.cli import stack_file
from knocktwice_worker.database import migrations
from knocktwice_worker.embedded.children import Child, supervise
from knocktwice_worker.embedded.installation import broker_url, database_url
from knocktwice_worker.embedded.servers import EmbeddedServers
from knocktwice_worker.sandbox import Sandbox, stand_in
from knocktwice_worker.sandbox.wall.application import Application
from knocktwice_worker.sandbox.wall.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from knocktwice_shared.messages import ReceiptEvent
    from knocktwice_worker.config import Settings
    from knocktwice_worker.embedded.children import Supervised

out = Console(highlight=False)


def run_stack(settings: Settings, *, flower_port: int, sandbox_port: int, gateway_port: int) -> int:
    """Run the whole stack until Ctrl-C or SIGTERM, starting again what falls. Returns the exit code.

    Args:
        flower_port, sandbox_port, gateway_port: on 127.0.0.1.
    """
    settings = stack_file.without_our_own(settings)
    with ExitStack() as stack, _interruptible():
        servers = provide(stack, settings)
        environment, stand_ins = _sandbox(stack, settings, sandbox_port, gateway_port)
        children = [
            celery("worker", settings, environment),
            celery("beat", settings, environment, f"--schedule={settings.home.resolve() / 'beat'}"),
            celery("flower", settings, environment, f"--port={flower_port}"),
            # Whoever tries it out wants to see the interface; nobody else reaches this port.
            gateway(
                settings,
                {"KNOCKTWICE_GATEWAY_DOCS": os.environ.get("KNOCKTWICE_GATEWAY_DOCS", "true"), **environment},
                f"--port={gateway_port}",
            ),
        ]
        _announce(settings, stand_ins, flower_port, gateway_port, _exports(settings, gateway_port) if servers else "")
        supervise([*servers, *children], threading.Event(), restarted=_tell_restart)
    return 0


def run_sandbox(settings: Settings, port: int) -> int:
    """Run the sandbox alone until Ctrl-C, and print the settings that point a worker at it."""
    with ExitStack() as stack, _interruptible():
        report = stack.enter_context(_reporter(settings))
        running = stack.enter_context(Sandbox(port=port, report=report, gateway=settings.public_url))
        for name, value in running.environment(_private(settings.home)).items():
            print(f"export {name}={value}", flush=True)
        out.print(f"sandbox at {running.url}; Ctrl-C ends it")
        threading.Event().wait()
    return 0


def provide(stack: ExitStack, settings: Settings) -> list[Supervised]:
    """Start the embedded servers that the settings do not replace, and bring the schema up to date.

    Args:
        stack: ends what is started here.

    Returns:
        The servers, to be watched over.
    """
    servers: list[Supervised] = []
    if settings.database_url is None or settings.broker_url is None:
        embedded = EmbeddedServers(settings.home)
        stack.enter_context(embedded)
        servers = [embedded.postgres, embedded.valkey]
    engine = sa.create_engine(database_url(settings), hide_parameters=True)
    migrations.upgrade(engine)
    engine.dispose()
    return servers


def celery(command: str, settings: Settings, environment: Mapping[str, str], *options: str) -> Child:
    """Return a Celery process (``worker``, ``beat``, ``flower``) with its output in the home folder's ``log``."""
    return _child(command, settings, environment, "-m", "celery", "-A", "knocktwice_worker", command, *options)


def gateway(settings: Settings, environment: Mapping[str, str], *options: str) -> Child:
    """Return an HTTP gateway with its output in the home folder's ``log``."""
    return _child("gateway", settings, environment, "-m", "knocktwice_worker.cli", "gateway", *options)


@contextlib.contextmanager
def _reporter(settings: Settings) -> Iterator[Callable[[ReceiptEvent], None]]:
    """Report what phones say of pushes without a receipt address, as an application does with the producer library."""
    with Client(broker_url(settings), state_url=settings.state_url) as client:

        def report(event: ReceiptEvent) -> None:
            try:
                client.record_receipts([event])
            except BrokerUnavailable as error:
                out.print(f"[yellow]a receipt was lost:[/] {error}")

        yield report


def _sandbox(stack: ExitStack, settings: Settings, port: int, gateway_port: int) -> tuple[dict[str, str], str]:
    """Let the sandbox stand in for the providers that have no credentials."""
    wanted = stand_in.missing(settings)
    if not wanted:
        return {}, ""
    public_url = settings.public_url
    if public_url is None and stand_in.all_missing(settings):
        # The sandbox is on this machine, too, so the address works. For a real provider it would lead nowhere.
        public_url = f"http://127.0.0.1:{gateway_port}"
    report = stack.enter_context(_reporter(settings))
    # Somebody else's people are neither notified nor moved in time from a page.
    own = stand_in.all_missing(settings) and settings.database_url is None and settings.broker_url is None
    application = _application(stack, settings, public_url) if own else None
    running = stack.enter_context(Sandbox(port=port, report=report, gateway=public_url, application=application))
    chosen = stand_in.chosen(running.environment(_private(settings.home)), settings)
    if public_url is not None:
        chosen["KNOCKTWICE_PUBLIC_URL"] = public_url
    if own and not settings.webhook_urls:
        chosen["KNOCKTWICE_WEBHOOK_URLS"] = json.dumps([f"{running.url}/sandbox/webhooks"])
    running.introduce()
    return chosen, f"{running.url} stands in for {' and '.join(wanted)}"


def _application(stack: ExitStack, settings: Settings, gateway_url: str | None) -> Application:
    """Return the application behind the sandbox's phones."""
    engine = sa.create_engine(database_url(settings), hide_parameters=True)
    stack.callback(engine.dispose)
    client = stack.enter_context(Client(broker_url(settings), state_url=settings.state_url))
    return Application(client, engine, Clock(engine), gateway_url)


def _child(name: str, settings: Settings, environment: Mapping[str, str], *arguments: str) -> Child:
    log = _private(settings.home / "log") / f"{name}.log"
    environment = {**os.environ, "KNOCKTWICE_HOME": str(settings.home.resolve()), **environment}
    # The interpreter itself, so that it is this installation whatever PATH says.
    return Child(name, [sys.executable, *arguments], log, env=environment)


def _exports(settings: Settings, gateway_port: int) -> str:
    engine = sa.create_engine(database_url(settings), hide_parameters=True)
    try:
        return stack_file.write(settings, engine, f"http://127.0.0.1:{gateway_port}")
    finally:
        engine.dispose()


def _announce(settings: Settings, stand_ins: str, flower_port: int, gateway_port: int, exports: str) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("Flower", f"http://127.0.0.1:{flower_port}")
    table.add_row("Gateway", f"http://127.0.0.1:{gateway_port}, its interface at /docs")
    if stand_ins:
        table.add_row("Sandbox", stand_ins)
    table.add_row("Logs", str((settings.home / "log").resolve()))
    out.print(table)
    # As it was called here: a virtual environment's command is seldom on PATH. Not wrapped, so that it can be copied.
    command = shlex.quote(sys.argv[0]) if sys.argv[0].endswith("/knocktwice") else "knocktwice"
    if exports:
        print(f'\nFor another terminal, also by: eval "$({command} env)"\n{exports}')
    print(f'Try: {command} notify --registration clicks-1 --title "Hello" --body "Knock knock"', flush=True)
    out.print("Ctrl-C ends everything")


def _tell_restart(child: Supervised) -> None:
    out.print(f"[yellow]{child.name} had ended and was started again[/]; its log tells why")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM end the block as Ctrl-C does, in order and quietly."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        out.print("ending …")
    finally:
        signal.signal(signal.SIGTERM, before)


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.resolve()
