"""The same service as most of us would write it first fails before the judge, so the judge can see."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
import sqlalchemy as sa
from celery import Celery
from sqlalchemy.orm import Session

from benchmarks import textbook
from knocktwice_shared.ids import uuid7
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.sandbox.accounts import Accounts
from oracle import provider
from oracle.judge import judge
from oracle.records import End, Evidence, Notify, PushAsked, Receipt, SmsAsked, Step, StepEnd, Told, read
from oracle.trouble import Door, Mood
from oracle.violations import Violation
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNTDOWN_S = 1.0


class Run:
    """The textbook with one worker process before the oracle's provider."""

    def __init__(self, database_url: str, broker_url: str, home: Path, stack: ExitStack) -> None:
        self._engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        textbook.Base.metadata.create_all(self._engine)
        self._celery = stack.enter_context(Celery(broker=broker_url))
        self._books = home / "books.jsonl"
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        account = Accounts().write_service_account(home, self._url)
        env = {
            **os.environ,
            **provider.environment(self._url, account),
            "KNOCKTWICE_DATABASE_URL": database_url,
            "KNOCKTWICE_BROKER_URL": broker_url,
            "TEXTBOOK_COUNTDOWN_S": str(COUNTDOWN_S),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        worker = ["-m", "celery", "-A", "benchmarks.textbook", "worker", "-c", "1", "--without-gossip"]
        for name, argv in {
            "provider": provider.command(port, self._books, home / "log.jsonl"),
            "worker": worker,
        }.items():
            child = Child(name, [sys.executable, *argv], home / f"{name}.log", env=env)
            child.start()
            stack.callback(child.kill)
        eventually(self._answers, why=lambda: (home / "provider.log").read_text())
        self._log = home / "worker.log"
        self.told: list[Notify | Receipt] = []

    def trouble(self, mood: Mood, wait_s: float = 0) -> None:
        """Let the provider behave so with SMS from now on."""
        body = {"door": Door.SMS, "mood": mood, "seconds": 600, "wait_s": wait_s}
        httpx.post(f"{self._url}/oracle/trouble", json=body).raise_for_status()

    def notify(self, count: int) -> None:
        """Notify so many people who do not answer."""
        for _ in range(count):
            n, id_ = len(self.told), str(uuid7())
            token, number, device = f"t{n}", f"+1650230{n:04}", f"device-{n}"
            body = f"We keep it until 19:45. [{token}]"
            with Session(self._engine) as session:
                session.add(textbook.Person(id=token, token=device, phone=number))
                session.commit()
            asked_at = time.time()
            self._send("send_push", id_, token, "Your table is ready", body)
            step = Step("not_delivered", COUNTDOWN_S, body)
            push = f"Your table is ready|{body}"
            self.told.append(
                Notify(
                    asked_at, time.time(), Told.ACCEPTED, token, id_, "library", None, (device,), number, push, (step,)
                )
            )

    def report_delivered(self) -> None:
        """Report every push as delivered."""
        for call in [call for call in self.told if isinstance(call, Notify)]:
            asked_at = time.time()
            self._send("record_delivered", call.id)
            told = Receipt(asked_at, time.time(), Told.ACCEPTED, call.id or "", call.token, "delivered", "")
            self.told.append(told)

    def asked(self, kind: type[PushAsked | SmsAsked]) -> int:
        """Return how many requests of a kind are in the provider's books."""
        return sum(isinstance(record, kind) for record in read(self._books))

    def failed(self) -> int:
        """Return how many tasks raised."""
        return self._log.read_text().count("raised unexpected")

    def evidence(self) -> Evidence:
        """Return what is known in the end."""
        found = Evidence(time.time() + 3_600)
        for record in [*self.told, *read(self._books)]:
            found.add(record)
        with Session(self._engine) as session:
            for row in session.scalars(sa.select(textbook.Notification)):
                sms = StepEnd(1, "sms", "sent" if row.sms_sid else "skipped", "textbook", row.sms_sid)
                kept = (("delivered", row.delivered_at.timestamp()),) if row.delivered_at else ()
                created_at = row.created_at.timestamp()
                found.add(End(row.id, row.person_id, row.state, "textbook", created_at, None, (sms,), kept))
        return found

    def _send(self, task: str, *args: object) -> None:
        self._celery.send_task(f"benchmarks.textbook.{task}", args=args, queue="textbook")

    def _answers(self) -> bool:
        try:
            return httpx.post(f"{self._url}/oracle/trouble", json={}).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def run(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Run]:
    """A textbook that has nothing to do yet."""
    with ExitStack() as stack:
        yield Run(database_url, valkey_url, tmp_path, stack)


def _found(run: Run) -> set[Violation]:
    return {finding.violation for finding in judge(run.evidence())}


def test_it_texts_people_whose_phones_have_reported_the_push(run: Run) -> None:
    run.trouble(Mood.SLOW, wait_s=1.5)
    run.notify(5)
    eventually(lambda: run.asked(SmsAsked) >= 1)
    run.report_delivered()
    eventually(lambda: run.asked(SmsAsked) == 5)
    assert Violation.AFTER_CLICK in _found(run)


@pytest.mark.parametrize(
    ("mood", "violations"),
    [(Mood.BROKEN, {Violation.LOST}), (Mood.LOST, {Violation.UNTOLD, Violation.FALSE_STORY})],
)
def test_it_loses_what_a_provider_does_not_answer(run: Run, mood: Mood, violations: set[Violation]) -> None:
    run.trouble(mood)
    run.notify(2)
    eventually(lambda: run.failed() == 2)
    assert _found(run) >= violations
