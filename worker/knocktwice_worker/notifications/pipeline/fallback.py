"""The decision about a step that is due: is it needed, and is it allowed?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.messages import Category, When
from knocktwice_worker.channels.channel import Consent
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.content.links import link_store
from knocktwice_worker.counters.counters import Count
from knocktwice_worker.lifecycle import (
    FALL_BACK,
    LOST,
    TRIGGERS,
    Delay,
    DeliveryState,
    Facts,
    Refusal,
    Verdict,
    decide,
)
from knocktwice_worker.notation import phone_numbers
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.concurrency import at_most
from knocktwice_worker.notifications.pipeline.decision_case import (
    Case,
    addressee,
    limits_ask,
)
from knocktwice_worker.notifications.store import trial_counts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence, Set

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.audience.receipt_health import SilentKinds
    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.counters.counters import Counters
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.notifications.pipeline.fallback_gates import FallbackGates
    from knocktwice_worker.notifications.pipeline.fallback_texts import FallbackTexts, Texts
    from knocktwice_worker.notifications.pipeline.trial import Trial
    from knocktwice_worker.projects.file import Projects

log = structlog.get_logger(__name__)

#: What shows that somebody has the push.
_ARRIVED = TRIGGERS[When.NOT_DELIVERED].answered_by

_UNDECIDED = {Verdict.WAIT, Delay.LIMITS_UNAVAILABLE, Delay.QUIET_HOURS, Delay.BRAKE, Delay.PAUSED, Delay.PROBE}

#: The wait before another look at a step that could not be decided yet.
_WAIT = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """Decides about steps that are due.

    Attributes:
        engine: opens short transactions.
        catch_up: carries out accepted messages about a notification before the decision.
        silent_kinds: the kinds of devices that never report a delivery.
        unconfirmed_policy: decides about a step whose push went only to such devices.
        numbers: which numbers may be texted.
        untextable_for: how long a number is passed over that messages did not reach.
        countries: ISO codes of the countries whose numbers may get messages; empty: all.
        channels: the channels of later steps.
        projects: what projects have of their own.
        texts: writes the messages.
        gates: takes out messages that must not go now, or not at all.
        lease: how long a reserved message waits for its sender before it rings again.
        useless_after: how long after it was due a message may still go, by category.
        counters: counts the verdicts.
        trial: rules that are only tried.
    """

    engine: Engine
    catch_up: CatchUp
    silent_kinds: SilentKinds
    unconfirmed_policy: UnconfirmedPolicy
    numbers: phone_numbers.Rules
    untextable_for: timedelta
    countries: Collection[str]
    channels: Channels
    projects: Projects
    texts: FallbackTexts
    gates: FallbackGates
    lease: timedelta
    useless_after: Mapping[Category, timedelta]
    counters: Counters
    trial: Trial

    @at_most(2)
    def check(self, ids: Sequence[str]) -> list[str]:
        """Decide about those of ``ids`` that are due by the database's clock.

        Returns:
            The ids whose message is now reserved and must be sent.
        """
        # Outside the transaction, because carrying out a message locks the same rows.
        pending = self._pending(ids)
        with self.engine.begin() as conn:
            rows = self._settled(
                conn, store.due(conn, ids, again=self.untextable_for, tried=self.trial.untextable_for), pending
            )
            if not rows:
                return []
            batches = store.contents(conn, (row.batch_id for row in rows))
            unconfirmed = self._unconfirmed(conn, rows)
            addresses = self._addresses(conn, rows, batches)
            texts: Texts = {}
            cases = [
                self._consider(row, batches[row.batch_id], unconfirmed, addresses.get(row.notification_id), texts)
                for row in rows
            ]
            for case in cases:
                case.hurried = case.id in pending
            self.gates.stop_paused(conn, [c for c in cases if c.reservation])
            stopped = self.gates.stop_braked(conn, [c for c in cases if c.reservation])
            self.gates.refuse_suppressed(conn, [c for c in cases if c.reservation and c.row.user_id is None])
            self.gates.postpone_quiet(conn, [c for c in cases if c.reservation and c.category is Category.MARKETING])
            self.gates.refuse_shared_numbers(conn, [c for c in cases if c.reservation], batches)
            self.gates.draw_experiment([c for c in cases if c.reservation], batches)
            asking = [case for case in cases if case.reservation]
            self.gates.apply_limits(conn, asking, rows[0].now)
            reservations = [c.reservation for c in asking if c.reservation and c.verdict in FALL_BACK]
            won = store.reserve(conn, sorted(reservations, key=lambda r: r.notification_id), self.lease)
            link_store.insert(conn, [link for c in cases if c.id in won for link in c.links])
            waiting = [c.id for c in cases if c.verdict in _UNDECIDED]
            store.postpone(conn, [c.id for c in cases if c.verdict is Delay.LIMITS_UNAVAILABLE], _WAIT)
            again = {c.id: c.row.again or c.row.now + _WAIT for c in cases if c.verdict is Verdict.WAIT}
            probed = {c.id: c.probed_until for c in cases if c.probed_until is not None}
            store.look_at(conn, again | stopped.unseen | probed)
            store.write_ledger(conn, [c.decision() for c in cases if c.id in won or c.id in probed])
            store.skip(conn, [c.decision() for c in cases if c.verdict not in FALL_BACK and c.id not in waiting])
            hurried = sum(c.hurried and c.verdict not in _UNDECIDED for c in cases)
            store.not_awaited(conn, hurried, self.catch_up.patience.total_seconds())
            stopped.note_passed(conn)
            watched = Counter(word for c in cases if c.id in won for word in c.stoppers)
            trial_counts.note(conn, watched)
        if hurried:
            log.warning("accepted messages were not awaited", decisions=hurried)
        lost = [limits_ask(c, r) for c in asking if (r := c.reservation) and c.verdict in FALL_BACK and c.id not in won]
        self.gates.limits.release(lost, rows[0].now)
        self.counters.add_each(Count.DECISIONS, (case.verdict for case in cases if not case.test))
        self.counters.add_each(Count.WATCHED, watched.elements())
        log.info("fallbacks decided", due=len(rows), reserved=len(won), waiting=len(waiting))
        return sorted(won)

    def _pending(self, ids: Sequence[str]) -> Set[str]:
        try:
            return self.catch_up.notifications(self.engine, ids, left=True)
        except RedisError as error:
            # Without Redis the pending messages are unknown. Redis accepts no new message meanwhile, so the wait is
            # limited.
            log.warning("decisions wait for the inbox", error=type(error).__name__)
            return frozenset(ids)

    def _settled(self, conn: Connection, rows: Sequence[store.DueStep], pending: Set[str]) -> Sequence[store.DueStep]:
        """Postpone steps with a pending message, unless their patience is over; return the other steps."""
        waiting = [
            row.notification_id
            for row in rows
            if row.notification_id in pending and row.now - row.due_at < self.catch_up.patience
        ]
        if not waiting:
            return rows
        store.postpone(conn, waiting, PENDING)
        return [row for row in rows if row.notification_id not in waiting]

    def _unconfirmed(self, conn: Connection, rows: Sequence[store.DueStep]) -> dict[str, list[str]]:
        """Return the notifications pushed only to kinds of devices that never send receipts, with these kinds."""
        if self.unconfirmed_policy is UnconfirmedPolicy.TEXT:
            return {}
        open_ = [
            r for r in rows if r.trigger is When.NOT_DELIVERED and r.before is DeliveryState.SENT and r.after_step == 0
        ]
        ids = [r.notification_id for r in open_ if all(getattr(r, kind) is None for kind in _ARRIVED)]
        return self.silent_kinds.among(conn, ids)

    def _unconfirmed_verdict(self, case: Case, kinds: list[str] | None) -> Verdict | Refusal | Delay:
        if case.verdict is not Verdict.NOT_DELIVERED or kinds is None:
            return case.verdict
        case.unconfirmed = {"policy": self.unconfirmed_policy, "never_confirm": kinds}
        accepts = self.unconfirmed_policy is UnconfirmedPolicy.ACCEPT
        return Verdict.ACCEPTED_UNCONFIRMED if accepts else Verdict.NOT_CLICKED

    def _addresses(
        self, conn: Connection, rows: Sequence[store.DueStep], batches: Mapping[str, store.BatchContents]
    ) -> dict[str, str]:
        """Return each step's address; steps of people without an address of the channel's kind are left out."""
        found = {row.notification_id: row.number for row in rows if row.number is not None}
        for channel in {row.channel for row in rows}:
            address = self.channels.entry(channel).address
            if address.is_number:
                continue
            people = [addressee(row, batches[row.batch_id]) for row in rows if row.channel == channel]
            for person in people:
                found.pop(person.notification_id, None)
            found |= address.find(conn, people)
        return found

    def _consider(
        self,
        row: store.DueStep,
        batch: store.BatchContents,
        unconfirmed: Mapping[str, list[str]],
        address: str | None,
        texts: Texts,
    ) -> Case:
        verdict = decide(
            Facts(
                when=row.trigger and When(row.trigger),
                before=row.before and DeliveryState(row.before),
                delivered=row.delivered is not None,
                clicked=row.clicked is not None,
                read=row.read is not None,
                seen=row.seen is not None,
                replied=row.replied is not None,
                cancelled=row.cancelled is not None,
                follows_push=row.after_step == 0,
                undelivered=row.provider_status in LOST,
            )
        )
        case = Case(row, batch.category, verdict, blast=batch.blast_id is not None)
        case.verdict = self._unconfirmed_verdict(case, unconfirmed.get(case.id))
        if case.verdict in FALL_BACK:
            case.verdict = self._refusal(case, address, batch) or case.verdict
            if case.verdict in FALL_BACK and address is not None:
                number = address if self.channels.entry(row.channel).address.is_number else None
                case.watched.extend(self.trial.refusals(row, case.category, batch.valid_for, number))
                case.reservation = self.texts.write(case, address, batch, texts)
        return case

    def _refusal(self, case: Case, address: str | None, batch: store.BatchContents) -> Refusal | None:
        """Return why no message may go to this person over the step's channel; ``None``: it may."""
        row, entry = case.row, self.channels.entry(case.row.channel)
        if row.now - row.due_at > (batch.valid_for or self.useless_after[case.category]):
            return Refusal.TOO_LATE
        if self.channels[entry.name].silent and self.projects.sender(row.project, entry.name) is None:
            return Refusal.NO_SENDER
        if address is None:
            return entry.address.missing
        if entry.address.is_number and row.opted_out:
            return Refusal.OPTED_OUT
        if entry.consent is Consent.PHONE and case.category is Category.MARKETING and not row.consented:
            return Refusal.NO_CONSENT
        if not entry.address.is_number:
            return None
        if (unusable := phone_numbers.refusal(address, self.numbers)) is not None:
            case.limits["number"] = unusable[0]
            return Refusal.INVALID_NUMBER
        if row.untextable is not None:
            case.limits["untextable"] = row.untextable
            return Refusal.UNTEXTABLE
        if self.countries and phone_numbers.country(address) not in self.countries:
            return Refusal.COUNTRY_BLOCKED
        return None
