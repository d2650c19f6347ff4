"""Numbers and webhooks while workers are killed fifty times: nothing is lost, counted twice or told out of order."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Category, Recipient, Sms
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.config import Settings
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.services import Services
from knocktwice_worker.webhooks import endpoints
from support.forked_workers import ForkedWorker, ForkedWorkers
from support.http_gateway import HttpGateway
from support.ports import free_port
from support.random_histories import recount, rolled_up
from support.system import PUSH, System, eventually
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS = 50
#: Workers at any time, so that somebody works while another one starts.
WORKERS = 2
#: Notifications under way from which on nobody sends more, so that the workers keep up.
MOST_OPEN = 40
#: What the workers have done so far, in rows they wrote.
DONE = """
SELECT (SELECT count(*) FROM notifications) + (SELECT count(*) FROM deliveries WHERE state <> 'scheduled')
     + (SELECT count(*) FROM events) + (SELECT count(*) FROM decisions)
"""
WHEN = ["not_delivered", "not_clicked"]
#: Delivered and clicked, delivered only, neither, and an app that was removed.
DEVICES = ["clicks", "delivers", "silent", "gone"]
#: Virtual phones in several countries.
NUMBERS = ["+1650555{:04}", "+1416555{:04}", "+4366012{:05}", "+44151234{:04}"]


@pytest.fixture
def public(system: System) -> Iterator[Services]:
    """The services of a gateway that the sandbox calls back."""
    names = ("twilio_account_sid", "twilio_auth_token", "twilio_from")
    environment = system.sandbox.environment(system.home)
    account: dict[str, Any] = {
        name: environment.get(name.upper()) or environment[f"KNOCKTWICE_{name.upper()}"] for name in names
    }
    built = Services(
        Settings(
            database_url=system.database_url,
            broker_url=system.broker_url,
            home=system.home,
            secret="test",
            gateway_per_s=0,
            public_url=f"http://127.0.0.1:{free_port()}",
            **account,
        )
    )
    yield built
    built.close()


def _gateway(public: Services) -> HttpGateway:
    return HttpGateway(public, port=int(str(public.settings.public_url).rpartition(":")[2]))


class Traffic(threading.Thread):
    """Sends all kinds of notifications until it is told to stop."""

    def __init__(self, system: System, seed: int) -> None:
        super().__init__(daemon=True)
        self._system = system
        self._client = system.client
        self._dice = random.Random(seed)
        self._enough = threading.Event()
        self._people = 0

    def run(self) -> None:
        """Send a batch whenever the workers have room for one."""
        sent: list[Any] = []
        while not self._enough.is_set():
            eventually(self._room, why=self._system.logs)
            dice = self._dice
            sms = Sms(when=dice.choice(WHEN), after=timedelta(seconds=dice.choice([0, 1, 3, 6])))
            sent += self._client.notify_many(
                [self._person() for _ in range(dice.randrange(1, 8))],
                push=PUSH,
                sms=sms if dice.random() < 0.9 else None,
                # Not marketing, which would wait for the end of quiet hours.
                category=dice.choice([Category.TRANSACTIONAL, Category.CRITICAL]),
            )
            if dice.random() < 0.2:
                self._client.cancel(dice.choice(sent[-30:]))

    def end(self) -> None:
        """Send nothing more."""
        self._enough.set()
        self.join()

    def _room(self) -> bool:
        under_way = "SELECT count(*) FROM notifications WHERE state = 'active'"
        waiting = self._system.redis.hlen(INBOX_MESSAGES)
        return self._enough.is_set() or (waiting < WORKERS and self._system.count(under_way) < MOST_OPEN)

    def _person(self) -> Recipient:
        self._people += 1
        dice, n = self._dice, self._people
        # Some numbers come again and run into the limits; some have a key that was used.
        return Recipient(
            registrations=(f"{dice.choice(DEVICES)}-{n}",),
            phone=dice.choice(NUMBERS).format(dice.randrange(1000, 9999)) if dice.random() < 0.9 else None,
            key=f"key-{dice.randrange(n)}" if dice.random() < 0.1 else None,
        )


def test_fifty_kills_change_no_number_and_lose_no_webhook(system: System, public: Services) -> None:
    system.sandbox.rule(Rule("sms", times=20, answer=Answer(statuses=("delivered", "sent", "delivered"))))
    system.sandbox.rule(Rule("sms", times=20, answer=Answer(statuses=("sent", "undelivered"), error_code=30003)))
    system.sandbox.rule(Rule("sms", times=5, answer=Answer(status=500, accept=True)))
    with WebhookReceiver() as application, _gateway(public) as gateway:
        # The machine is busy: what is slow is not dead.
        system.settings |= {"KNOCKTWICE_PROVIDER_TIMEOUT_S": "4", "KNOCKTWICE_LEASE_S": "10"}
        system.settings |= {"KNOCKTWICE_PUBLIC_URL": gateway.url}
        with system.engine.begin() as conn:
            endpoints.add(conn, application.url, (), personal=False, private=False)
        with ForkedWorkers(system.environment, system.home) as forked_workers:
            traffic = Traffic(system, seed=3)
            traffic.start()
            try:
                workers = _kill(system, forked_workers, random.Random(3))
            finally:
                traffic.end()
            # The kills came while there was something to count and to tell.
            assert application.taken
            assert system.count("SELECT count(*) FROM rollups") > 0
            _settle(system, workers)
            _agree(system)
            _told(system, application)


def _kill(system: System, forked_workers: ForkedWorkers, dice: random.Random) -> list[ForkedWorker]:
    workers = [forked_workers.fork() for _ in range(WORKERS)]
    for _ in range(KILLS):
        doomed = workers.pop(0)
        eventually(lambda doomed=doomed: doomed.ready)  # type: ignore[misc]
        # Mostly as soon as it works, sometimes in the midst of more.
        goal = system.count(DONE) + int(dice.random() ** 3 * 100)
        eventually(lambda goal=goal: system.count(DONE) >= goal, why=doomed.log)  # type: ignore[misc]
        doomed.kill()
        workers.append(forked_workers.fork())
    return workers


def _settle(system: System, workers: list[ForkedWorker]) -> None:
    """Wait until nothing can happen any more."""

    def why() -> str:
        return "\n".join(worker.log()[-4000:] for worker in workers)

    def nothing(query: str) -> None:
        eventually(lambda: system.count(query) == 0, within=180, why=lambda: f"{query}\n{why()}")

    eventually(lambda: system.redis.hlen(INBOX_MESSAGES) == 0, within=180, why=why)
    nothing("SELECT count(*) FROM notifications WHERE state = 'active'")
    nothing("SELECT count(*) FROM deliveries WHERE wake_at IS NOT NULL")
    called = len([text for text in system.sandbox.texts() if text.status_callback])
    eventually(lambda: len({c.form["MessageSid"] for c in system.sandbox.callbacks()}) == called, why=why)
    # What beat has done every minute: a callback may come while the row it is about is held.
    eventually(lambda: _brought(system), why=why)
    eventually(lambda: system.redis.hlen(INBOX_MESSAGES) == 0, why=why)


def _brought(system: System) -> bool:
    with system.engine.begin() as conn:
        return provider_reports.bring(conn) == 0


def _agree(system: System) -> None:
    """The roll-ups come to say what a recount of all rows in plain Python says."""

    def numbers() -> tuple[Any, Any]:
        with system.engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
            return rolled_up(conn), recount(conn)

    def equal() -> bool:
        said, counted = numbers()
        return bool(said == counted)

    eventually(equal, why=lambda: "\n".join(map(str, numbers())))
    _, counted = numbers()
    total = {name: sum(line[name] for line in counted.values()) for line in counted.values() for name in line}
    # Something of everything has happened.
    for name in ("accepted", "cancelled", "pushed", "delivered", "clicked", "fell_back", "sms_sent"):
        assert total.get(name), f"no {name} in {total}"


def _told(system: System, application: WebhookReceiver) -> None:
    """Every fact in the rows was told, and the facts of each notification first came in the order of their times."""
    with system.engine.connect() as conn:
        expected = _facts(conn)

    def told() -> dict[str, list[str]]:
        first: dict[str, list[str]] = defaultdict(list)
        for message_id, _ in list(application.taken):
            id_, step, type_ = message_id.split(".", 2)
            # A repeat after a kill has the same id: whoever takes webhooks knows it by that.
            if f"{step} {type_}" not in first[id_]:
                first[id_].append(f"{step} {type_}")
        return first

    def missing() -> list[str]:
        heard = told()
        return [id_ for id_, facts in expected.items() if {fact for _, fact in facts} - set(heard.get(id_, ()))]

    eventually(lambda: not missing(), why=lambda: str([(expected[i], told().get(i)) for i in missing()[:5]]))
    for id_, heard in told().items():
        when = {fact: at for at, fact in expected[id_]}
        assert set(heard) == set(when)
        times = [when[fact] for fact in heard]
        assert times == sorted(times), (heard, when)
        assert heard[0] in ("0 notification.accepted", "0 notification.finished")


def _facts(conn: sa.Connection) -> dict[str, list[tuple[Any, str]]]:
    """Return notification → when what happened to it, read row by row."""
    facts: dict[str, list[tuple[Any, str]]] = defaultdict(list)
    # A row carries the time at which its transaction began, and what ends a notification may have begun before it.
    accepted = {}
    for n in conn.execute(sa.text("SELECT * FROM notifications")):
        accepted[n.id] = n.created_at
        if n.state != "duplicate":
            facts[str(n.id)].append((n.created_at, "0 notification.accepted"))
        if n.finished_at:
            facts[str(n.id)].append((max(n.finished_at, n.created_at), "0 notification.finished"))
    for d in conn.execute(sa.text("SELECT * FROM deliveries WHERE finished_at IS NOT NULL")):
        at = max(d.finished_at, accepted[d.notification_id])
        facts[str(d.notification_id)].append((at, f"{d.step} {d.channel}.{d.state}"))
        if d.step and d.state == "sent" and d.provider_status in ("undelivered", "failed"):
            facts[str(d.notification_id)].append((d.heard_at, f"{d.step} {d.channel}.undelivered"))
    receipts = sa.text("""
    SELECT notification_id, step, kind, min(received_at) AS at FROM events
    WHERE kind IN ('delivered', 'clicked') GROUP BY 1, 2, 3
    """)
    for e in conn.execute(receipts):
        # A receipt may come before its notification's rows.
        at = max(e.at, accepted[e.notification_id])
        facts[str(e.notification_id)].append((at, f"{e.step} {'sms' if e.step else 'push'}.{e.kind}"))
    return facts
