"""One notification of a test, and everything that workers can do to it, by their own functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from knocktwice_shared.messages import Receipt, ReceiptEvent, UserErased
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.privacy import erasure

if TYPE_CHECKING:
    from knocktwice_shared.messages import Batch
    from knocktwice_worker.lifecycle import ProviderState
    from support.scenario import Scenario


@dataclass
class OneNotification:
    """One notification, and everything that can be done to it. A ``silent`` one must never be texted."""

    scenario: Scenario
    batch: Batch
    number: str
    registration: str
    user: str | None = None
    silent: bool = False

    @property
    def id(self) -> str:
        return str(self.batch.recipients[0].id)

    @property
    def texts(self) -> int:
        return len(self.scenario.sandbox.texts(self.number))

    def accept(self) -> None:
        self.scenario.here.pushes.send_all([self.scenario.here.guard.without_erased(self.batch)])

    def resume(self) -> None:
        self.scenario.here.pushes.resume([self.id])

    def check(self) -> None:
        self.scenario.here.fallback.check([self.id])

    def send(self) -> None:
        self.scenario.here.later_steps.send([self.id])

    def decide_and_send(self) -> None:
        self.scenario.here.later_steps.send(self.scenario.here.fallback.check([self.id]))

    def reconcile(self) -> None:
        self.scenario.here.reconcile.resolve([self.id])

    def cancel(self) -> None:
        cancellation.cancel(self.scenario.here.engine, [self.id], [])

    def click(self, kind: Receipt = Receipt.CLICKED) -> None:
        said = ReceiptEvent(UUID(self.id), kind, datetime.now(UTC), self.registration)
        receipts.record(self.scenario.here.engine, [said])

    def deliver(self) -> None:
        self.click(Receipt.DELIVERED)

    def stop(self) -> None:
        with self.scenario.here.engine.begin() as conn:
            inbound_texts.receive(conn, [InboundText(f"SM-stop-{self.id}", self.number, Wish.STOP)], b"test")

    def report(self, *statuses: ProviderState, step: int = 1) -> None:
        """The provider calls back about a step, as the address it was given names it."""
        said = [
            StatusReport("twilio", self.sid(step), status, datetime.now(UTC), intent=(self.id, step))
            for status in statuses
        ]
        with self.scenario.here.engine.begin() as conn:
            provider_reports.accept(conn, said)
        with self.scenario.here.engine.begin() as conn:
            provider_reports.bring(conn, {self.sid(step)})

    def sid(self, step: int) -> str:
        to = (
            f"whatsapp:{self.number}" if self.batch.plan and self.batch.plan[step - 1].channel != "sms" else self.number
        )
        taken = self.scenario.sandbox.texts(to)
        return taken[-1].sid if taken else f"SM-{self.id}-{step}"

    def erase(self) -> None:
        if self.user:
            change = UserErased(self.user, self.scenario.now())
            self.scenario.erased.add(self.user)
            try:
                self.scenario.here.erasure.erase_all([change])
            except erasure.Unsettled:
                self.scenario.unsettled[self.user] = change

    def rows(self, query: str) -> list[Any]:
        with self.scenario.here.engine.connect() as conn:
            return list(conn.execute(sa.text(query), {"id": self.id}).all())

    def steps(self) -> list[str]:
        query = "SELECT state FROM deliveries WHERE notification_id = :id ORDER BY step"
        return [row.state for row in self.rows(query)]

    def state(self) -> str:
        (row,) = self.rows("SELECT state FROM notifications WHERE id = :id")
        return str(row.state)

    def ledger(self) -> list[str]:
        return [
            row.verdict for row in self.rows("SELECT verdict FROM decisions WHERE notification_id = :id ORDER BY id")
        ]


def check_all(*cases: OneNotification) -> None:
    cases[0].scenario.here.fallback.check([case.id for case in cases])


def send_all(*cases: OneNotification) -> None:
    cases[0].scenario.here.later_steps.send([case.id for case in cases])


def resume_all(*cases: OneNotification) -> None:
    cases[0].scenario.here.pushes.resume([case.id for case in cases])


def cancel_all(*cases: OneNotification) -> None:
    cancellation.cancel(cases[0].scenario.here.engine, [case.id for case in cases], [])


def click_all(*cases: OneNotification) -> None:
    said = [ReceiptEvent(UUID(c.id), Receipt.CLICKED, datetime.now(UTC), c.registration) for c in cases]
    receipts.record(cases[0].scenario.here.engine, said)
