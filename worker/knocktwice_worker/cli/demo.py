"""Three simulated people, three endings: ``knocktwice demo`` runs the real system for them and tells what happens.

Real PostgreSQL, Valkey, worker, gateway and HTTP; only the phones and their providers are the sandbox's. The phones
report as apps do, to the signed address that each push carries. Everything lives in a temporary folder.
"""

from __future__ import annotations

import socket
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from knocktwice import Client, Push, Sms
from knocktwice_worker.cli import up
from knocktwice_worker.config import Settings
from knocktwice_worker.embedded.servers import addresses
from knocktwice_worker.reporting import moments, story
from knocktwice_worker.sandbox import Phone, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from knocktwice_worker.embedded.children import Child

#: The fallback delay of the demo. Real ones are minutes.
DELAY = timedelta(seconds=4)
#: After this long something is wrong.
LIMIT = timedelta(seconds=60)
#: Pause between two looks at the database.
_GLANCE_S = 0.1

out = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Person:
    """A person to notify, with the expected end."""

    name: str
    habit: str
    phone: str
    colour: str
    notifications: bool
    clicks: bool
    ending: str
    texts: int

    @property
    def registration(self) -> str:
        """The registration of their one device."""
        return f"{self.name.lower()}s-phone"


PEOPLE = (
    Person(
        "Ada", "clicks the push", "+16505550101", "green", notifications=True, clicks=True, ending="reached", texts=0
    ),
    Person("Ben", "ignores it", "+16505550102", "yellow", notifications=True, clicks=False, ending="texted", texts=1),
    Person(
        "Cleo",
        "has notifications off",
        "+16505550103",
        "cyan",
        notifications=False,
        clicks=False,
        ending="texted",
        texts=1,
    ),
)


def run_demo() -> int:
    """Run the demo. Returns 0 if all went as promised."""
    started = time.monotonic()
    with ExitStack() as work:
        home = Path(work.enter_context(tempfile.TemporaryDirectory(prefix="knocktwice-demo-")))
        servers = addresses(home)
        settings = Settings(home=home, database_url=None, broker_url=None)
        out.print("[bold]knocktwice[/]: the first knock is a push; if nobody answers, the second is an SMS.\n")
        up.provide(work, settings)
        client = work.enter_context(Client(servers.broker_url))
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        sandbox = work.enter_context(Sandbox(gateway=url))
        environment = {
            **sandbox.environment(home),
            "KNOCKTWICE_DATABASE_URL": servers.database_url,
            "KNOCKTWICE_BROKER_URL": servers.broker_url,
            "KNOCKTWICE_PUBLIC_URL": url,
        }
        worker = up.celery("worker", settings, environment)
        gateway = up.gateway(settings, environment, f"--port={port}")
        for child in (worker, gateway):
            child.start()
            work.callback(child.stop)
        engine = sa.create_engine(servers.database_url)
        work.callback(engine.dispose)
        _introduce(client, sandbox)
        _await_introductions(engine)
        _await_gateway(gateway, url)
        running = f"{time.monotonic() - started:.1f} s"
        out.print(f"Servers, worker, gateway and sandbox run after {running}. One call for three:\n")
        ids = client.notify_many(
            [person.name.lower() for person in PEOPLE],
            push=Push("Your table is ready", "We keep it until 19:45."),
            sms=Sms("Your table is ready. We keep it until 19:45.", when="not_clicked", after=DELAY),
        )
        ended = _watch(engine, dict(zip(ids, PEOPLE, strict=True)))
        fine = _judge(ended, sandbox)
        if not fine:
            for child in (worker, gateway):
                out.print(f"\nThe {child.name}'s last words:\n{child.log_tail(30)}", markup=False)
    return 0 if fine else 1


def _introduce(client: Client, sandbox: Sandbox) -> None:
    for person in PEOPLE:
        sandbox.add_phone(
            Phone(
                person.registration,
                delivered_after=0.3 if person.notifications else None,
                clicked_after=1.5 if person.clicks else None,
            )
        )
        client.register_device(
            person.name.lower(), person.registration, platform="android", notifications_enabled=person.notifications
        )
        client.bind_phone(person.name.lower(), person.phone)


def _await_introductions(engine: sa.Engine) -> None:
    counting = sa.text("SELECT (SELECT count(*) FROM devices) + (SELECT count(number) FROM phones)")
    deadline = time.monotonic() + LIMIT.total_seconds()
    while time.monotonic() < deadline:
        with engine.connect() as conn:
            if conn.execute(counting).scalar_one() == 2 * len(PEOPLE):
                return
        time.sleep(_GLANCE_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_gateway(gateway: Child, url: str) -> None:
    """Wait until phones can report; one that does not start shows in how it all ends."""
    deadline = time.monotonic() + LIMIT.total_seconds()
    while gateway.alive and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own, on this machine
                return
        except OSError:
            time.sleep(_GLANCE_S)


def _watch(engine: sa.Engine, people: dict[UUID, Person]) -> dict[str, str]:
    """Print what happens as it happens, until all notifications have ended. Returns each person's ending."""
    began, ended = datetime.now(UTC), dict[str, str]()
    told: set[tuple[str, moments.Moment]] = set()
    deadline = time.monotonic() + LIMIT.total_seconds()
    while len(ended) < len(people) and time.monotonic() < deadline:
        time.sleep(_GLANCE_S)
        with engine.connect() as conn:
            stories = [(person, found) for id_, person in people.items() if (found := story.tell(conn, str(id_)))]
        news = [(moment, person) for person, found in stories for moment in _past(found)]
        for moment, person in sorted(news, key=lambda n: n[0].at):
            if (person.name, moment) not in told:
                told.add((person.name, moment))
                seconds = max((moment.at - began).total_seconds(), 0)
                out.print(f"[{person.colour}]{seconds:6.2f} s  {person.name:5}[/] {moment.sentence}")
        ended |= {person.name: found.state for person, found in stories if found.finished_at}
    return ended


def _past(told: story.Story) -> Iterator[moments.Moment]:
    """The events so far; the story also contains planned ones."""
    now = datetime.now(UTC)
    return (moment for moment in told.moments if moment.at <= now)


def _judge(ended: dict[str, str], sandbox: Sandbox) -> bool:
    table = Table("", "", "ended as", "promised", "SMS", "promised", "receipts", "promised", box=None, pad_edge=False)
    fine = True
    for person in PEOPLE:
        texts = len(sandbox.texts(person.phone))
        state = ended.get(person.name, "still open")
        told = [report.kind for push in sandbox.pushes(person.registration) for report in push.reports if report.taken]
        wanted = ["delivered"] * person.notifications + ["clicked"] * person.clicks
        right = (state, texts, sorted(told)) == (person.ending, person.texts, sorted(wanted))
        fine &= right
        mark = "[green]✓[/]" if right else "[red]✗[/]"
        pairs = (state, person.ending), (str(texts), str(person.texts)), (str(len(told)), str(len(wanted)))
        table.add_row(mark, f"{person.name} {person.habit}", *(cell for pair in pairs for cell in pair))
    out.print()
    out.print(table)
    out.print("Receipts were sent to the address in each push, and taken by the gateway.")
    out.print("\nAll as promised." if fine else "\n[red]Not as promised.[/]")
    return fine
