"""The claim of reserved messages: a last look at each, then its turn and its limits, and a lease; in one transaction."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Category
from knocktwice_shared.test_side import is_test
from knocktwice_worker.channels.channel import Consent
from knocktwice_worker.channels.opened import NO_CARRIER
from knocktwice_worker.channels.outbound.pacing import Lane
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import WAITS_TURN, Delay, Note, Refusal
from knocktwice_worker.limits.asks import Ask
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.brake import Candidate
from knocktwice_worker.notifications.pipeline.carrier_choice import as_pausable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.channels.outbound.provider_choice import Choice
    from knocktwice_worker.limits.counting import Counting
    from knocktwice_worker.notifications.pipeline.brake import BrakeGate
    from knocktwice_worker.notifications.pipeline.carrier_choice import CarrierChoice
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate
    from knocktwice_worker.notifications.pipeline.quiet import QuietGate

#: Who waits for a pace with whom.
_LANES = {
    Lane.NONE: {Category.CRITICAL},
    Lane.SINGLES: {Category.TRANSACTIONAL},
    Lane.BLASTS: {Category.MARKETING},
}
#: A message that was reserved longer ago than this has waited in a line.
_AT_ONCE = timedelta(seconds=1)

#: When to look again while the limits cannot be counted.
_WAIT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages that this sender has claimed.

    Attributes:
        at: the claim's time.
        chosen: notification id → by which provider it goes.
        useful_for: notification id → how long after it was due it may still go.
    """

    at: datetime
    chosen: Mapping[str, Choice]
    useful_for: Mapping[str, timedelta]


@dataclass(frozen=True, kw_only=True)
class LaterClaims:
    """Claims reserved messages for one sender.

    Attributes:
        engine: for short transactions.
        channels: the channels of later steps.
        carriers: chooses the provider of each message.
        limits: counts messages against their numbers.
        quiet: holds marketing while it is night.
        lease: how long a claim lasts without an answer.
        useless_after: how long after it was due a message may still go, by category.
        brake: holds messages while too many would fall back at once.
        pauses: stops messages that operators have paused.
    """

    engine: Engine
    channels: Channels
    carriers: CarrierChoice
    limits: Counting
    quiet: QuietGate
    lease: timedelta
    useless_after: Mapping[Category, timedelta]
    brake: BrakeGate
    pauses: PauseGate

    def claim(self, ids: Sequence[str]) -> Claim | None:
        """Claim the reserved messages among ``ids`` that may go now; the others end, wait or stay reserved."""
        with self.engine.begin() as conn:
            rows = store.reserved(conn, ids)
            if not rows:
                return None
            refusals = {row.notification_id: refusal for row in rows if (refusal := self._refusal(row))}
            refused = [row for row in rows if row.notification_id in refusals]
            store.skip(conn, [_refused(r, refusals[r.notification_id]) for r in refused])
            wanted = self._unbraked(conn, [row for row in rows if row.notification_id not in refusals])
            marketing = [row for row in wanted if row.category is Category.MARKETING]
            asleep = self.quiet.postpone(conn, marketing).postponed
            awake = [row for row in wanted if row.notification_id not in asleep]
            # Before the choice: the choice of a demoted provider uses up its probe.
            paused = self.pauses.stop(
                conn, (as_pausable(row, self.carriers.able(row)) for row in awake), self.useless_after, decided=True
            )
            awake = [row for row in awake if row.notification_id not in paused]
            chosen = self.carriers.choose(conn, awake)
            its_turn = self._pace(conn, awake, chosen)
            allowed = self._recount(conn, its_turn)
            tries = {row.notification_id: row.tries for row in its_turn}
            places = {i: store.Placement(chosen[i].provider, tries[i]) for i in allowed}
            claimed, claimed_at = store.claim_steps(conn, places, self.lease)
            steps = {row.notification_id: row.step for row in rows}
            store.write_ledger(
                conn,
                [
                    store.Decision(i, Note.PROVIDER_CHOSEN, {"provider": one.provider, "why": one.why}, steps[i])
                    for i in claimed
                    if (one := chosen[i]).why
                ],
            )
            if claimed_at is None:
                return None
            useful = {row.notification_id: self._useful_for(row) for row in its_turn}
            useful_for = {i: useful[i] for i in claimed}
            return Claim(claimed_at, {i: chosen[i] for i in claimed}, useful_for)

    def is_stopped(self, row: store.ClaimedStep) -> bool:
        """Whether anything has happened since its claim that keeps a message from going."""
        return row.stopped or self._no_longer(row) is not None

    def _unbraked(self, conn: Connection, rows: Sequence[store.ReservedStep]) -> Sequence[store.ReservedStep]:
        """Let a brake hold messages that wait for their turn; return the others."""
        stopped = self.brake.stop(
            conn,
            [
                Candidate(
                    row.notification_id,
                    row.step,
                    row.single,
                    row.brake,
                    row.braked,
                    None,
                    row.now + self.useless_after[row.category] - row.age,
                    row.parts,
                    row.pumping,
                )
                for row in rows
                if (row.brake is not None or row.pumping is not None) and not is_test(row.project)
            ],
        )
        stopped.write(conn)
        return [row for row in rows if row.notification_id not in stopped.ids]

    def _refusal(self, row: store.ReservedStep) -> Refusal | None:
        """Return why a message may not go any more, although it might when its step was due; ``None``: it may."""
        if row.age > self._useful_for(row):
            return Refusal.TOO_LATE
        if not self.carriers.able(row):
            return Refusal.INVALID_CONTENT
        if self.channels.entry(row.channel).address.is_number and row.opted_out:
            return Refusal.OPTED_OUT
        return self._no_longer(row)

    def _no_longer(self, row: store.ReservedStep | store.ClaimedStep) -> Refusal | None:
        """Return what an application has said of a person since the decision that keeps a message from them."""
        entry = self.channels.entry(row.channel)
        if entry.address.is_number and not row.theirs:
            return Refusal.NUMBER_CHANGED
        if entry.consent is Consent.PHONE and row.category is Category.MARKETING and not row.consented:
            return Refusal.NO_CONSENT
        return None

    def _useful_for(self, row: store.ReservedStep) -> timedelta:
        return row.valid_for or self.useless_after[row.category]

    def _pace(
        self, conn: Connection, rows: Sequence[store.ReservedStep], chosen: Mapping[str, Choice]
    ) -> Sequence[store.ReservedStep]:
        """Return the messages that their senders' paces have room for now; the others stay reserved and ring again."""
        by_sender: dict[tuple[str, str, str | None], list[store.ReservedStep]] = defaultdict(list)
        granted: list[store.ReservedStep] = []
        for row in rows:
            if (provider := chosen[row.notification_id].provider) == STAND_IN:
                granted.append(row)
            else:
                by_sender[row.channel, provider, row.sender].append(row)
        for (channel, provider, sender), waiting in by_sender.items():
            pace = self.channels.pace(channel, provider, sender)
            for lane, own in _by_lane(waiting):
                # A message without parts counts as one.
                costs = [self._parts(row) or 1 for row in own]
                turn = pace.take(costs, lane, entitled=sum(row.waited > _AT_ONCE for row in own))
                late = [row.notification_id for row in own[turn.granted :]]
                store.postpone_each(conn, dict(zip(late, turn.waits, strict=True)), WAITS_TURN)
                granted += own[: turn.granted]
        return granted

    def _parts(self, row: store.ReservedStep) -> int:
        # Without a number of parts: one that an earlier release reserved.
        return self.channels.entry(row.channel).size(row.text) if row.parts is None else int(row.parts)

    def _recount(self, conn: Connection, rows: Sequence[store.ReservedStep]) -> list[str]:
        """Ask the limits again now that the reservations are committed: Redis may have been wiped since.

        For a message that is counted already this only restarts the seconds in which its content locks the number.
        """
        if not rows:
            return []
        asks = [
            Ask(
                row.notification_id,
                row.number,
                row.fingerprint,
                self._parts(row),
                row.category,
                row.channel,
                row.step,
                row.project,
            )
            for row in rows
        ]
        answers = self.limits.count(conn, asks, rows[0].now)
        paired = list(zip(asks, answers, strict=True))
        waiting = [a.notification_id for a, answer in paired if answer.refusal is Delay.LIMITS_UNAVAILABLE]
        store.postpone(conn, waiting, _WAIT)
        store.skip(
            conn,
            [
                store.Decision(a.notification_id, answer.refusal, answer.inputs(a, self.limits.limits), a.step)
                for a, answer in paired
                if answer.refusal and answer.refusal is not Delay.LIMITS_UNAVAILABLE
            ],
        )
        return [a.notification_id for a, answer in paired if answer.refusal is None]


def _refused(row: store.ReservedStep, why: Refusal) -> store.Decision:
    problem = NO_CARRIER if why is Refusal.INVALID_CONTENT else None
    return store.Decision(row.notification_id, why, {"problem": problem} if problem else {}, row.step, problem=problem)


def _by_lane(rows: Sequence[store.ReservedStep]) -> Iterator[tuple[Lane, list[store.ReservedStep]]]:
    """Yield the messages of each lane, critical ones first; in a lane those that have waited longest come first."""
    for lane, categories in _LANES.items():
        if own := [row for row in rows if row.category in categories]:
            yield lane, sorted(own, key=lambda row: row.waited, reverse=True)
