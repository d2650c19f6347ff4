"""The gates of a decision: each takes out the messages of a batch that must not go now, or not at all."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Category
from knocktwice_worker.audience.opt_outs import suppressed
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import FOLLOW_UPS, Delay, Refusal, TextTrouble, Verdict
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.decision_case import Case, candidate_for_brake, limits_ask
from knocktwice_worker.notifications.pipeline.experiment import Arm
from knocktwice_worker.notifications.pipeline.pauses import Candidate as Pausable
from knocktwice_worker.notifications.store.braked import OF_MANY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.limits.counting import Counting
    from knocktwice_worker.notifications.pipeline.brake import BrakeGate, Stopped
    from knocktwice_worker.notifications.pipeline.experiment import Experiment
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate
    from knocktwice_worker.notifications.pipeline.quiet import QuietGate


@dataclass(frozen=True, kw_only=True)
class FallbackGates:
    """Takes messages out of a decision: a gate gives a case another verdict.

    Attributes:
        channels: the channels of later steps.
        limits: counts messages against their numbers.
        quiet: postpones marketing during quiet hours.
        useless_after: how long after it was due a message may still go, by category.
        brake: holds messages while too many would fall back at once.
        pauses: stops messages that operators have paused.
        experiment: holds a share back, if an operator wants to know what the messages are worth.
    """

    channels: Channels
    limits: Counting
    quiet: QuietGate
    useless_after: Mapping[Category, timedelta]
    brake: BrakeGate
    pauses: PauseGate
    experiment: Experiment

    def stop_paused(self, conn: Connection, cases: Sequence[Case]) -> None:
        """Take out the messages that an operator has paused. They count against no limit."""
        candidates = (
            Pausable(
                c.id,
                c.row.channel,
                [STAND_IN] if c.test else self.channels.carriers(c.row.channel, r.text),
                r.sender,
                r.number,
            )
            for c in cases
            if (r := c.reservation)
        )
        paused = self.pauses.stop(conn, candidates, self.useless_after)
        for case in cases:
            if case.id in paused:
                case.verdict, case.reservation = Delay.PAUSED, None

    def stop_braked(self, conn: Connection, cases: Sequence[Case]) -> Stopped:
        """Take out the messages that a brake holds, or may hold as soon as their pushes were counted.

        None holds a test.
        """
        concerned = [c for c in cases if (c.verdict in OF_MANY or c.row.pumping is not None) and not c.test]
        stopped = self.brake.stop(
            conn, [candidate_for_brake(case, self.useless_after[case.category]) for case in concerned]
        )
        stopped.write(conn)
        for case in cases:
            case.passed = stopped.passed.get(case.id)
            if case.passed is not None:
                case.watched.append(TextTrouble.PUMPING if case.passed == case.row.pumping else Delay.BRAKE)
            if case.id in stopped.ids:
                case.verdict, case.reservation = Delay.BRAKE, None
        return stopped

    def refuse_suppressed(self, conn: Connection, cases: Sequence[Case]) -> None:
        """Refuse numbers whose erased owners had opted out.

        A user's number was checked when it was bound to the user. These numbers came inline, so they are checked here.
        """
        gone = suppressed(conn, {case.row.number or "" for case in cases}, self.limits.secret)
        for case in cases:
            if case.row.number in gone:
                case.verdict, case.reservation = Refusal.OPTED_OUT, None

    def refuse_shared_numbers(
        self, conn: Connection, cases: Sequence[Case], batches: Mapping[str, store.BatchContents]
    ) -> None:
        """Refuse messages of a blast to numbers that another of its notifications has."""
        wanted: dict[tuple[str, bytes], str] = {}
        of_blasts = [(c, blast) for c in cases if (blast := batches[c.row.batch_id].blast_id) is not None]
        for case, blast in of_blasts:
            if case.reservation is not None:
                wanted.setdefault((blast, self._hash(case.row.channel, case.reservation.number)), case.id)
        having = store.take_numbers(conn, wanted)
        for case, _ in of_blasts:
            if case.id not in having:
                case.verdict, case.reservation = Refusal.SHARED_NUMBER, None

    def postpone_quiet(self, conn: Connection, cases: Sequence[Case]) -> None:
        """Let marketing wait for the end of the night."""
        asleep = self.quiet.postpone(conn, [case.row for case in cases])
        for case in cases:
            if case.id in asleep.postponed:
                case.verdict, case.reservation = Delay.QUIET_HOURS, None
            elif case.id in asleep.tried:
                case.watched.append(Delay.QUIET_HOURS)

    def draw_experiment(self, cases: Sequence[Case], batches: Mapping[str, store.BatchContents]) -> None:
        """Hold a share back, or let it wait longer. It is drawn among those that limits are asked about next."""
        if not self.experiment:
            return
        for case in cases:
            # Critical messages, those that are no fallback, and tests are never part of the experiment.
            if (
                case.test
                or case.category is Category.CRITICAL
                or case.verdict is Verdict.FIRST_STEP
                or case.row.trigger in FOLLOW_UPS
            ):
                continue
            case.arm = self.experiment.arm(case.id)
            if case.arm is Arm.HELD_OUT:
                case.verdict, case.reservation = Refusal.HELD_OUT, None
            elif case.arm is Arm.PROBE:
                row = case.row
                useful_for = batches[row.batch_id].valid_for or self.useless_after[case.category]
                case.probed_until = self.experiment.waits_until(row.due_at, row.now, useful_for)
                if case.probed_until is not None:
                    case.verdict, case.reservation = Delay.PROBE, None

    def apply_limits(self, conn: Connection, cases: Sequence[Case], now: datetime) -> None:
        """Count the messages against their numbers and budgets, and refuse those for which there is no room."""
        asks = [limits_ask(c, r) for c in cases if (r := c.reservation)]
        answers = self.limits.count(conn, asks, now)
        for case, ask, answer in zip(cases, asks, answers, strict=True):
            case.limits = answer.inputs(ask, self.limits.limits)
            if answer.refusal:
                case.verdict = answer.refusal
                continue
            if answer.trial:
                case.watched.append(answer.trial)
            if answer.own_trial:
                case.watched.append(f"{ask.level}/{answer.own_trial}")

    def _hash(self, channel: str, number: str) -> bytes:
        return hmac.digest(self.limits.secret, f"blast:{channel}:{number}".encode(), hashlib.sha256)[:16]
