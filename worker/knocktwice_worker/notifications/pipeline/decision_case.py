"""One step during its decision: its facts, the verdict so far, and the questions about it to brake, limits and channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages import Category
from knocktwice_shared.test_side import is_test
from knocktwice_worker.channels.address import Addressee
from knocktwice_worker.content import plans
from knocktwice_worker.lifecycle import (
    FALL_BACK,
    Delay,
    Evidence,
    Refusal,
    Verdict,
)
from knocktwice_worker.limits.asks import Ask
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.brake import Candidate
from knocktwice_worker.notifications.store import trial_counts
from knocktwice_worker.notifications.store.braked import OF_MANY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from knocktwice_worker.content.links import link_store
    from knocktwice_worker.notifications.pipeline.experiment import Arm


@dataclass(slots=True)
class Case:
    """One step during its decision.

    Attributes:
        row: the facts about the step.
        category: the category of the message.
        verdict: the verdict so far; a rule or a limit may replace it with a refusal or a delay.
        reservation: the message, if the rules allow it.
        limits: the figures of the limits, for the ledger.
        links: the short links in the message.
        unconfirmed: the result of the policy about devices that never send receipts, for the ledger.
        blast: whether the message is a blast's.
        passed: the brake that would have held it, for the ledger.
    """

    row: store.DueStep
    category: Category
    verdict: Verdict | Refusal | Delay
    reservation: store.Reservation | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    links: list[link_store.Link] = field(default_factory=list)
    unconfirmed: Mapping[str, Any] | None = None
    blast: bool = False
    passed: int | None = None
    #: What the experiment does with the message, for the ledger.
    arm: Arm | None = None
    #: When a message that waits longer for the experiment is looked at again.
    probed_until: datetime | None = None
    #: What is wrong with the content, if that is the verdict.
    problem: str | None = None
    #: What would have stopped the message, if the rules that are only watched were in force.
    watched: list[str] = field(default_factory=list)
    #: An accepted message about the step is still pending, but the wait for it is over.
    hurried: bool = False

    @property
    def id(self) -> str:
        """The notification's id."""
        return self.row.notification_id

    @property
    def test(self) -> bool:
        """Whether it is a test, so that no provider gets it."""
        return is_test(self.row.project)

    @property
    def stoppers(self) -> list[str]:
        """The trial rules that would have stopped the message, and a word for all together; of a test nothing is counted."""
        return [*self.watched, trial_counts.ANY] if self.watched and not self.test else []

    def decision(self) -> store.Decision:
        """Return the line of the ledger: the verdict, and what was known."""
        row = self.row
        events = {kind: getattr(row, kind) for kind in (*Evidence, "cancelled")}
        inputs = {
            "when": row.trigger,
            "due_at": row.due_at,
            row.before_channel or "": row.before,
            "reported": row.provider_status,
            "events": {kind: at for kind, at in events.items() if at},
            **self.limits,
            "unconfirmed": self.unconfirmed,
            "not_awaited": True if self.hurried else None,
            "would_be_held_by_brake": self.passed,
            "would_be_stopped_by": (self.watched or None) if self.verdict in FALL_BACK else None,
            "experiment": self.arm,
            "until": self.probed_until,
            "problem": self.problem,
        }
        known = {k: v for k, v in inputs.items() if v is not None}
        opened = row.clicked is not None or row.seen is not None
        by_reply = row.replied is not None and self.verdict is Verdict.REACHED_IN_TIME
        return store.Decision(
            self.id,
            self.verdict,
            known,
            row.step,
            answered=opened or by_reply,
            read=row.read is not None,
            problem=self.problem,
        )


def candidate_for_brake(case: Case, useful_for: timedelta) -> Candidate:
    """Return the question to the brake about a message."""
    row, of_many = case.row, case.verdict in OF_MANY
    return Candidate(
        case.id,
        row.step,
        not case.blast and case.category is not Category.MARKETING,
        row.brake if of_many else None,
        row.braked,
        row.unseen_until if of_many else None,
        row.due_at + useful_for,
        case.reservation.parts if case.reservation else None,
        row.pumping,
    )


def limits_ask(case: Case, reservation: store.Reservation) -> Ask:
    """Return the question to the limits about a reservation."""
    return Ask(
        case.id,
        reservation.number,
        reservation.fingerprint,
        reservation.parts,
        case.category,
        case.row.channel,
        case.row.step,
        case.row.project,
    )


def planned_step(row: store.DueStep, batch: store.BatchContents) -> Mapping[str, Any]:
    """Return a step as stored in its plan; empty for the usual SMS."""
    return batch.plan[row.step - 1] if batch.plan else plans.USUAL


def addressee(row: store.DueStep, batch: store.BatchContents) -> Addressee:
    """Return the person of a step, for a channel that finds the address itself."""
    return Addressee(row.notification_id, row.user_id, row.number, row.params, planned_step(row, batch))
